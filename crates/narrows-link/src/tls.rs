//! TLS for both sides, with rustls. Keys and certificates are PEM.

use std::{fmt, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};

use crate::Error;

/// A certificate chain and its key, as PEM.
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    /// The certificates, the own one first.
    pub chain_pem: &'a [u8],
    /// The private key: PKCS #8, PKCS #1 or SEC 1.
    pub key_pem: &'a [u8],
}

impl fmt::Debug for Identity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)")
    }
}

/// What a client needs to speak TLS.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ClientTls {
    /// Trusts the authorities in `ca_pem` (and no others) for a server called `name`; shows
    /// `identity` to a server that asks for one.
    ///
    /// # Errors
    /// PEM, a key or a name that cannot be used.
    pub fn new(ca_pem: &[u8], name: &str, identity: Option<Identity<'_>>) -> Result<ClientTls, Error> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(tls("choosing protocol versions"))?
            .with_root_certificates(authorities(ca_pem)?);
        let config = match identity {
            None => config.with_no_client_auth(),
            Some(identity) => config
                .with_client_auth_cert(chain(identity.chain_pem)?, key(identity.key_pem)?)
                .map_err(tls("using the client's certificate"))?,
        };
        let name = ServerName::try_from(name.to_owned()).map_err(tls("using the server's name"))?;
        Ok(ClientTls { config: Arc::new(config), name })
    }

    pub(crate) fn connection(&self) -> Result<rustls::ClientConnection, Error> {
        rustls::ClientConnection::new(Arc::clone(&self.config), self.name.clone())
            .map_err(tls("starting TLS"))
    }
}

/// What a server needs to speak TLS.
#[cfg(feature = "server")]
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<rustls::ServerConfig>,
    asks_clients: bool,
}

#[cfg(feature = "server")]
impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("asks_clients", &self.asks_clients).finish_non_exhaustive()
    }
}

#[cfg(feature = "server")]
impl ServerTls {
    /// Shows `identity`; with `client_ca_pem`, serves only clients with a certificate of one of
    /// these authorities.
    ///
    /// # Errors
    /// PEM or a key that cannot be used.
    pub fn new(identity: Identity<'_>, client_ca_pem: Option<&[u8]>) -> Result<ServerTls, Error> {
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(tls("choosing protocol versions"))?;
        let config = match client_ca_pem {
            None => config.with_no_client_auth(),
            Some(pem) => {
                let authorities = Arc::new(authorities(pem)?);
                let verifier =
                    rustls::server::WebPkiClientVerifier::builder_with_provider(authorities, provider())
                        .build()
                        .map_err(tls("using the clients' authorities"))?;
                config.with_client_cert_verifier(verifier)
            }
        };
        let config = config
            .with_single_cert(chain(identity.chain_pem)?, key(identity.key_pem)?)
            .map_err(tls("using the server's certificate"))?;
        Ok(ServerTls { config: Arc::new(config), asks_clients: client_ca_pem.is_some() })
    }

    pub(crate) fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        Arc::clone(&self.config).into()
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn tls<E: fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Error {
    move |error| Error::Tls { what, cause: error.to_string() }
}

fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let what = "reading certificates";
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(tls(what))?;
    if chain.is_empty() {
        return Err(tls(what)("there is none in this PEM"));
    }
    Ok(chain)
}

fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(pem).map_err(tls("reading the private key"))
}

fn authorities(pem: &[u8]) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for certificate in chain(pem)? {
        store.add(certificate).map_err(tls("using an authority's certificate"))?;
    }
    Ok(store)
}
