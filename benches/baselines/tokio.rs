//! A task per connection on tokio: the runtime of one thread, its tasks bound to it, readiness by epoll.

use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local};

use super::hub::{Hub, Wire};
use super::{Stop, Totals, refused};

/// Serves until told to stop.
pub(crate) fn run(listener: TcpListener, stop: &Stop) -> Totals {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let hub = Hub::new();
        listener.set_nonblocking(true).expect("a socket can be told not to block");
        let listener = tokio::net::TcpListener::from_std(listener).expect("within the runtime");
        while !stop.asked() {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let hub = Rc::clone(&hub);
                    let _ = stream.set_nodelay(true);
                    spawn_local(async move { hub.serve(Socket(stream)).await });
                }
                Err(error) => refused(&error),
            }
        }
        Totals { deliveries: hub.deliveries() }
    })
}

struct Socket(TcpStream);

impl Wire for Socket {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }
}
