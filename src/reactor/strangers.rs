//! Connections before their login: how many, how many bytes they may leave unread, and whom a load balancer speaks for.
//!
//! `Core::strangers` counts the connections in the phase `Handshake`, `Core::stranger_bytes` what those have in `unread`; both are part of the counts of
//! all connections. [`Core::no_longer_a_stranger`] is called once, when a connection leaves that phase. A connection from a listed proxy is `proxied` until
//! its header is whole; then `Core::clients` has the client's address for as long as the connection is here, and takes it along when it moves.

use std::net::IpAddr;

use super::bytes_in::Parsed;
use super::connection::Phase;
use super::core::Core;
use super::counters::Ended;
use super::effects::Ending;
use crate::ids::Key;
use crate::protocol::error::Reason;
use crate::protocol::frame::Transport;
use crate::protocol::proxy::{self, Header};

impl<S> Core<S> {
    /// A new connection: one of the listed proxies has to say first whom it speaks for.
    pub(super) fn meet(&mut self, key: Key) {
        let proxies = &self.settings.server.proxies;
        if proxies.is_empty() {
            return;
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        let peer = (self.address_of)(&connection.socket);
        connection.proxied = peer.is_some_and(|peer| proxies.iter().any(|network| network.contains(peer)));
    }

    /// Reads the header that a proxy has sent. `Used(0)` while it is incomplete.
    pub(super) fn proxy_header(&mut self, key: Key, bytes: &[u8]) -> Parsed {
        match proxy::header(bytes) {
            Header::Incomplete { .. } => Parsed::Used(0),
            Header::Whole { client, rest } => {
                self.counters.proxy_headers.add(1);
                self.connections.get_mut(key).expect("found by the caller").proxied = false;
                if let Some(client) = client {
                    self.clients.insert(key, client);
                }
                Parsed::Used(bytes.len() - rest.len())
            }
            Header::Bad(error) => {
                self.counters.proxy_headers_bad.add(1);
                if !self.warned_proxy {
                    self.warned_proxy = true;
                    log::warn!("a proxy of server.proxies: {}; further ones are counted as proxy_headers_bad", error.message());
                }
                self.end_and_settle(key, Ending::said(Reason::BadFrame, Some(error.message())));
                Parsed::Over
            }
        }
    }

    /// The first bytes of a connection are those of something that is not spoken here.
    pub(super) fn wrong_start(&mut self, key: Key, transport: Transport) {
        if transport == Transport::Proxy {
            self.counters.proxy_headers_refused.add(1);
            if !self.warned_proxy {
                self.warned_proxy = true;
                log::warn!(
                    "a PROXY header from {}, which server.proxies does not list: refused; further ones are counted as proxy_headers_refused",
                    self.peer(key).map_or_else(|| "an address".to_owned(), |peer| peer.to_string())
                );
            }
            let message = "a PROXY header from an address that is not a listed proxy";
            return self.end_and_settle(key, Ending::said(Reason::Forbidden, Some(message)));
        }
        if !self.warned_transport {
            self.warned_transport = true;
            log::warn!("{transport:?} on a port that speaks TCP frames only: closed; further ones are counted as other_transport");
        }
        self.end_and_settle(key, Ending::silent(Ended::OtherTransport));
    }

    /// Whose failures its logins are: the client's that a proxy has named, else those of whoever is at the other end.
    pub(super) fn address(&self, key: Key) -> Option<IpAddr> {
        self.clients.get(&key).copied().or_else(|| self.peer(key))
    }

    fn peer(&self, key: Key) -> Option<IpAddr> {
        (self.address_of)(&self.connections.get(key)?.socket)
    }

    /// As many connections wait for their login as may.
    pub(super) fn is_full_of_strangers(&self) -> bool {
        self.strangers >= self.settings.limits.handshakes_per_shard
    }

    /// Bytes that strangers may have unread together.
    pub(super) fn stranger_bytes_max(&self) -> usize {
        let queues = &self.settings.queues;
        queues.handshake_bytes_max.min(queues.leftover_bytes_max / 2)
    }

    /// Bytes of a connection are kept, or no longer are.
    pub(super) fn unread_grows(&mut self, key: Key, count: usize) {
        self.unread_bytes += count;
        if self.is_stranger(key) {
            self.stranger_bytes += count;
        }
    }

    pub(super) fn unread_shrinks(&mut self, key: Key, count: usize) {
        self.unread_bytes -= count;
        if self.is_stranger(key) {
            self.stranger_bytes -= count;
        }
    }

    fn is_stranger(&self, key: Key) -> bool {
        self.connections.get(key).is_some_and(|connection| connection.phase == Phase::Handshake)
    }

    /// The connection is about to leave the phase `Handshake`.
    pub(super) fn no_longer_a_stranger(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key).filter(|c| c.phase == Phase::Handshake) else { return };
        self.strangers -= 1;
        self.stranger_bytes -= connection.unread.as_ref().map_or(0, |unread| unread.bytes.len());
    }
}
