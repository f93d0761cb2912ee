//! The thread, its listeners and its connections: each of them bounded in number, size and time.
//!
//! A header has to be whole in [`HEADER_MAX`], a request answered in [`REQUEST_MAX`], a connection gone after [`CONNECTION_MAX`], kept alive or not, read
//! from or not. Above [`CONNECTIONS_MAX`] a connection gets 503 at once. One thread, so no request takes more than one core from the shards.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

use super::desk::Desk;
use super::routes;

const CONNECTIONS_MAX: usize = 128;
/// Bytes of a request's header, and its lines.
const HEADER_BYTES_MAX: usize = 16 * 1024;
const HEADER_LINES_MAX: usize = 64;
/// Bytes of a request's body.
pub(super) const BODY_BYTES_MAX: usize = 1024 * 1024;
const HEADER_MAX: Duration = Duration::from_secs(5);
/// From the header to the answer: longer than the log may take.
pub(super) const REQUEST_MAX: Duration = Duration::from_secs(15);
/// A connection is told to end after this, and cut a little later.
const CONNECTION_MAX: Duration = Duration::from_secs(60);
const CUT_AFTER: Duration = Duration::from_secs(5);
/// Pause after an accept that failed, for example for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Until the thread has ended once it was told to.
const STOP_MAX: Duration = Duration::from_secs(2);

const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 72\r\n\r\n{\"code\":503,\"reason\":\"overloaded\",\"message\":\"too many connections here\"}";

/// The running thread. Dropping it ends it.
#[derive(Debug)]
pub struct Plane {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Plane {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            // The runtime gives its tasks up within STOP_MAX.
            let _ = thread.join();
        }
    }
}

/// Opens the listeners; the error names the address.
pub fn open(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, (SocketAddr, io::Error)> {
    let one = |address: &SocketAddr| {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    addresses.iter().map(|address| one(address).map_err(|why| (*address, why))).collect()
}

/// Starts the thread on listeners that [`open`] made.
pub fn start(desk: Arc<Desk>, listeners: Vec<TcpListener>) -> io::Result<Plane> {
    let (stop, stopped) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let thread = std::thread::Builder::new().name("control".into()).spawn(move || {
        runtime.block_on(serve(&desk, listeners, stopped));
        runtime.shutdown_timeout(STOP_MAX);
    })?;
    Ok(Plane { stop, thread: Some(thread) })
}

async fn serve(desk: &Arc<Desk>, listeners: Vec<TcpListener>, mut stopped: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    for listener in listeners {
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => drop(tokio::spawn(accept(listener, desk.clone(), places.clone()))),
            Err(why) => log::error!("the control plane can't use a listener: {why}"),
        }
    }
    // An error means that the other end has gone, which is as good.
    let _ = stopped.wait_for(|stop| *stop).await;
}

async fn accept(listener: tokio::net::TcpListener, desk: Arc<Desk>, places: Arc<Semaphore>) {
    let router = routes::router(desk);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(why) => {
                log::warn!("the control plane can't accept: {why}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            // Whoever does not read it at once goes without.
            let _ = stream.try_write(TOO_MANY);
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            converse(stream, service).await;
            drop(place);
        });
    }
}

async fn converse(stream: TcpStream, service: TowerToHyperService<axum::Router>) {
    // Answers are small; whoever waits for one should not wait for the next.
    let _ = stream.set_nodelay(true);
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_MAX).max_buf_size(HEADER_BYTES_MAX).max_headers(HEADER_LINES_MAX);
    let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
    // What a client did wrong is its own affair; hyper has answered where it could.
    if tokio::time::timeout(CONNECTION_MAX, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(CUT_AFTER, connection).await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_a_full_house_is_as_long_as_it_says() {
        let text = std::str::from_utf8(TOO_MANY).unwrap();
        let (header, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(header.ends_with(&format!("Content-Length: {}", body.len())), "{header}");
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
