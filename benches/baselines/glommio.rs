//! A task per connection on `glommio::net`: the server's own executor, with its sockets instead of a ring of one's own.

use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use glommio::{LocalExecutorBuilder, Placement, PoolPlacement};

use super::hub::{Hub, Wire};
use super::{Stop, Totals, refused};

/// Serves until told to stop.
pub(crate) fn run(listener: TcpListener, stop: &Stop) -> Totals {
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(0)
        // As in the server: a preempt timer that ends at the wrong moment makes glommio 0.9.0 sleep for good.
        .preempt_timer(Duration::from_secs(24 * 60 * 60))
        .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
        .make()
        .expect("an executor");
    executor.run(async {
        let hub = Hub::new();
        #[allow(unsafe_code, reason = "glommio takes a listener by descriptor only")]
        // SAFETY: the descriptor is a listening socket, and `into_raw_fd` has just given it up, so glommio is its only owner.
        let listener = unsafe { glommio::net::TcpListener::from_raw_fd(listener.into_raw_fd()) };
        while !stop.asked() {
            match listener.accept().await {
                Ok(stream) => {
                    let hub = Rc::clone(&hub);
                    let _ = stream.set_nodelay(true);
                    glommio::spawn_local(async move { hub.serve(Socket(stream)).await }).detach();
                }
                Err(error) => refused(&error.into()),
            }
        }
        Totals { deliveries: hub.deliveries() }
    })
}

struct Socket(TcpStream);

impl Wire for Socket {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }
}
