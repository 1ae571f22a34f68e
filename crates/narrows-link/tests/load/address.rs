//! An address for servers that come and go.

use std::net::SocketAddr;

/// An address where nobody listens, nor will: its port is below those that systems give out, so that
/// a server which leaves it can come back.
pub fn quiet_address() -> SocketAddr {
    let first = 10_000 + (std::process::id() % 1000) as u16 * 20;
    (first..first + 20)
        .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
        .find(|&address| std::net::TcpListener::bind(address).is_ok())
        .expect("one of twenty ports is free")
}
