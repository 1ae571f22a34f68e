//! Options of every command that asks a server.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use narrows_link::emulator::{Link, Proxy};
use narrows_link::tls::{ClientTls, Identity};
use narrows_link::{Client, Error, Fallback, Options, Token};

use crate::evaluate::parse_rate;
use crate::failure::{Code, Failure, Result};

/// The way to a server, and how the two sides know each other.
#[derive(clap::Args)]
pub struct LinkArgs {
    /// Send over an emulated link of this rate in bit/s, such as 143.6k or 10M
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    link_rate: Option<f64>,
    /// Time for each request, in seconds, lost attempts included
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    timeout: f64,
    /// Speak TLS, and trust the authorities in this file (PEM)
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The name in the server's certificate [default: the host of --server]
    #[arg(long, value_name = "NAME", requires = "ca")]
    server_name: Option<String>,
    /// Show this certificate (PEM) to the server
    #[arg(long, value_name = "FILE", requires_all = ["ca", "key"])]
    certificate: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Show the bearer token in this file to the server
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// A client, and the emulated link before it.
pub struct Connection {
    /// Dropped first: it says goodbye through the proxy.
    pub client: Client,
    _proxy: Option<Proxy>,
}

impl LinkArgs {
    /// Connect to `server`. `timeout` is the time for each request if it is not the option's. Who has a fallback goes on
    /// if nobody answers.
    pub fn connect(
        &self,
        server: &str,
        timeout: Option<Duration>,
        fallback: Option<Fallback>,
    ) -> Result<Connection> {
        let own = Duration::try_from_secs_f64(self.timeout)
            .ok()
            .filter(|timeout| !timeout.is_zero())
            .ok_or_else(|| Failure::usage(format!("--timeout is {}, it must be above 0", self.timeout)))?;
        let has_fallback = fallback.is_some();
        let options = Options {
            request_timeout: timeout.unwrap_or(own),
            token: self.token()?,
            tls: self.tls(server)?,
            fallback,
            ..Options::default()
        };
        let failed = |error| Failure::link(format!("cannot reach the server at {server}"), &error);
        let connect = |addresses: &[SocketAddr]| match Client::connect(addresses, options.clone()) {
            Err(error) if has_fallback && is_absence(&error) => Client::offline(addresses, options.clone()),
            connected => connected,
        };
        let addresses: Vec<SocketAddr> = server.to_socket_addrs().map(Iterator::collect).unwrap_or_default();
        let Some(first) = addresses.first() else {
            return Err(Failure::new(Code::TryAgain, format!("no host is known as {server}")));
        };
        let Some(rate) = self.link_rate else {
            return Ok(Connection { client: connect(&addresses).map_err(failed)?, _proxy: None });
        };
        // A proxy accepts before it has reached the server: see first whether there is one.
        drop(connect(&[*first]).map_err(failed)?);
        let link = Link::at_rate(rate).map_err(failed)?;
        let proxy = Proxy::start(*first, link, link).map_err(failed)?;
        let client = connect(&[proxy.local_addr()]).map_err(failed)?;
        Ok(Connection { client, _proxy: Some(proxy) })
    }

    fn tls(&self, server: &str) -> Result<Option<ClientTls>> {
        let Some(ca) = &self.ca else { return Ok(None) };
        let (ca, chain, key) = (read(ca)?, self.certificate.as_deref(), self.key.as_deref());
        let pair = chain.zip(key).map(|(chain, key)| Ok((read(chain)?, read(key)?))).transpose()?;
        let identity = pair.as_ref().map(|(chain_pem, key_pem)| Identity { chain_pem, key_pem });
        let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
        let name = self.server_name.as_deref().unwrap_or_else(|| host.trim_matches(['[', ']']));
        let tls = ClientTls::new(&ca, name, identity);
        tls.map(Some).map_err(|error| Failure::link("cannot use these certificates", &error))
    }

    fn token(&self) -> Result<Option<Token>> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let text = String::from_utf8(read(path)?)
            .map_err(|_| Failure::data(format!("{} is no text", path.display())))?;
        let token = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
        let missing = || Failure::data(format!("{} holds no token", path.display()));
        token.map(|token| Some(Token::new(token))).ok_or_else(missing)
    }
}

/// Whether nobody is there, as opposed to somebody who says no.
fn is_absence(error: &Error) -> bool {
    matches!(error, Error::Io { .. } | Error::Deadline { .. } | Error::Closed | Error::Truncated { .. })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Failure::io("read", path, &error))
}
