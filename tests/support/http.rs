//! Raw HTTP/1.1 over a socket: what is sent is what a test says, byte for byte.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::PATIENCE;

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    pub(crate) header: String,
    pub(crate) body: String,
}

impl Reply {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }

    /// An error object with this code and reason.
    #[track_caller]
    pub(crate) fn assert_problem(&self, code: u16, reason: &str) {
        let object = self.json();
        assert_eq!((self.code, &object["code"], &object["reason"]), (code, &Value::from(code), &Value::from(reason)), "{self:?}");
        assert!(object["message"].as_str().is_some_and(|message| !message.is_empty()), "{self:?}");
    }
}

/// Connected, with deadlines.
#[track_caller]
pub(crate) fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// One request on a connection of its own; `headers` are lines without their ends.
#[track_caller]
pub(crate) fn call(address: SocketAddr, request: &str, headers: &[&str], body: &str) -> Reply {
    let mut stream = dial(address);
    let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let host =
        if headers.iter().any(|line| line.to_lowercase().starts_with("host:")) { String::new() } else { format!("Host: {address}\r\n") };
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let whole = format!("{request} HTTP/1.1\r\n{host}Connection: close\r\n{lines}{length}\r\n{body}");
    // The server may have said no before it has read all.
    let _ = stream.write_all(whole.as_bytes());
    read_reply(&mut stream).expect("an answer")
}

#[track_caller]
pub(crate) fn get(address: SocketAddr, path: &str) -> Reply {
    call(address, &format!("GET {path}"), &[], "")
}

/// All that comes until the end of the stream; `None` when it is no answer.
pub(crate) fn read_reply(stream: &mut TcpStream) -> Option<Reply> {
    let mut bytes = Vec::new();
    // A reset after the answer takes nothing from it.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let (header, body) = text.split_once("\r\n\r\n")?;
    let code = header.split(' ').nth(1)?.parse().ok()?;
    Some(Reply { code, header: header.to_owned(), body: body.to_owned() })
}

/// The value of one sample; `None` when it is not there.
pub(crate) fn sample(page: &str, series: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// The sum over all series of a metric whose labels hold this text.
pub(crate) fn total(page: &str, metric: &str, label: &str) -> f64 {
    let series =
        page.lines().filter(|line| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label));
    series.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}
