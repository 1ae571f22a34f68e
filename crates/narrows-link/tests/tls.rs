//! TLS and mutual TLS between client and server.

mod common;

use common::*;
use narrows_link::{
    Client, Error, Limits, Options, Running, ServerOptions,
    tls::{ClientTls, Identity, ServerTls},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// An authority that signs.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate for `name` and its key.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        (params.signed_by(&key, &self.issuer).expect("a certificate").pem(), key.serialize_pem())
    }
}

fn identity(pair: &(String, String)) -> Identity<'_> {
    Identity { chain_pem: pair.0.as_bytes(), key_pem: pair.1.as_bytes() }
}

fn server(authority: &Authority, clients: Option<&Authority>) -> Running {
    let pair = authority.issue("edge.example");
    let tls = ServerTls::new(identity(&pair), clients.map(|clients| clients.pem.as_bytes()));
    echo_server(ServerOptions { tls: Some(tls.expect("a TLS server")), ..limits().into() })
}

fn connect(
    server: &Running,
    authority: &Authority,
    name: &str,
    pair: Option<&(String, String)>,
) -> Result<Client, Error> {
    let tls = ClientTls::new(authority.pem.as_bytes(), name, pair.map(identity)).expect("a TLS client");
    Client::connect(server.local_addr(), Options { tls: Some(tls), ..options() })
}

#[test]
fn an_echo_comes_back_whole_through_tls() {
    let authority = Authority::new();
    let server = server(&authority, None);
    let mut client = connect(&server, &authority, "edge.example", None).expect("a session");
    for length in [0, 1, 16_384, 56_000, 401_408] {
        let payload: Vec<u8> = (0..length).map(|i| (i * 7) as u8).collect();
        assert!(client.request("echo", &payload).expect("an echo").payload == payload, "{length} bytes");
    }
    let payload = vec![9; 50_000];
    let mut pipeline = client.pipeline();
    for _ in 0..30 {
        pipeline.submit(narrows_link::Call::new("echo", &payload));
    }
    while let Some((_, answer)) = pipeline.next() {
        assert!(answer.expect("an echo").payload == payload);
    }
    drop(pipeline);
    drop(client);
    server.stop().expect("a server without errors");
}

#[test]
fn a_server_of_another_authority_or_name_is_not_trusted() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = server(&authority, None);
    for (authority, name) in [(&other, "edge.example"), (&authority, "other.example")] {
        let error = connect(&server, authority, name, None).map(|_| ()).expect_err("no trust");
        assert!(error.to_string().contains("invalid peer certificate"), "{error}");
    }
}

#[test]
fn a_server_that_asks_for_certificates_serves_nobody_without() {
    let (authority, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let server = server(&authority, Some(&clients));
    let (known, strange) = (clients.issue("device-7"), strangers.issue("device-7"));
    let mut client = connect(&server, &authority, "edge.example", Some(&known)).expect("a session");
    assert_eq!(client.request("echo", b"x").expect("an echo").payload, b"x");
    assert!(connect(&server, &authority, "edge.example", None).is_err());
    assert!(connect(&server, &authority, "edge.example", Some(&strange)).is_err());
}

#[test]
fn bare_tcp_and_tls_do_not_meet() {
    let authority = Authority::new();
    let secure = server(&authority, None);
    assert!(
        Client::connect(secure.local_addr(), Options { connect_timeout: millis(500), ..options() }).is_err()
    );
    let bare = echo_server(Limits { message_timeout: millis(500), ..limits() });
    assert!(connect(&bare, &authority, "edge.example", None).is_err());
}

#[test]
fn what_is_no_certificate_is_refused_with_what_it_was_for() {
    let authority = Authority::new();
    let pair = authority.issue("edge.example");
    let error = |result: Result<ServerTls, Error>| result.expect_err("unusable").to_string();
    let chain = Identity { chain_pem: b"nothing", ..identity(&pair) };
    assert!(error(ServerTls::new(chain, None)).starts_with("reading certificates"));
    let key = Identity { key_pem: b"nothing", ..identity(&pair) };
    assert!(error(ServerTls::new(key, None)).starts_with("reading the private key"));
    let other = authority.issue("edge.example");
    let mixed = Identity { key_pem: other.1.as_bytes(), ..identity(&pair) };
    assert!(error(ServerTls::new(mixed, None)).starts_with("using the server's certificate"));
    assert!(ClientTls::new(authority.pem.as_bytes(), "not a name", None).is_err());
}
