//! Requests to the ACME server.

use std::error::Error as StdError;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::fault::{Context, Fault, Result};

/// For one request with its answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// No answer of an ACME server comes near this.
const MOST_BYTES: usize = 1 << 20;

type Failure = Box<dyn StdError + Send + Sync>;

/// A client that trusts the host's certificates, and perhaps others.
pub struct Fetch(Arc<ClientConfig>);

impl Fetch {
    /// `roots` is a file in PEM with certificates that are trusted beside those of the host.
    ///
    /// # Errors
    /// If the file cannot be read, or nothing is trusted.
    pub fn new(roots: Option<&Path>) -> Result<Self> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = roots {
            let about = format!("the certificates in {}", path.display());
            let read: std::result::Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).context(&about)?.collect();
            for certificate in read.context(&about)? {
                store.add(certificate).context(&about)?;
            }
        }
        if store.is_empty() {
            let fault = Fault::new("this host trusts no certificates, so that no ACME server can be asked");
            return Err(fault.next("install them (Debian: ca-certificates), or name a file"));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().context("TLS")?;
        Ok(Self(Arc::new(config.with_root_certificates(store).with_no_client_auth())))
    }
}

impl HttpClient for Fetch {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = std::result::Result<BytesResponse, Error>> + Send>> {
        let tls = TlsConnector::from(Arc::clone(&self.0));
        Box::pin(async move {
            let answered = tokio::time::timeout(PATIENCE, ask(tls, request)).await;
            match answered {
                Ok(answer) => answer.map(BytesResponse::from).map_err(Error::Other),
                Err(_) => Err(Error::Other(format!("no answer within {} s", PATIENCE.as_secs()).into())),
            }
        })
    }
}

async fn ask(
    tls: TlsConnector,
    mut request: Request<BodyWrapper<Bytes>>,
) -> std::result::Result<Response<Full<Bytes>>, Failure> {
    let uri = request.uri().clone();
    let host = uri.host().ok_or("the address of the ACME server names no host")?.to_owned();
    if uri.scheme_str() != Some("https") {
        return Err(format!("{uri}: allowed is https").into());
    }
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), uri.port_u16().unwrap_or(443))).await?;
    let server = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
    let stream = tls.connect(server, stream).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let authority = uri.authority().ok_or("the address of the ACME server names no host")?;
    request.headers_mut().insert(HOST, HeaderValue::from_str(authority.as_str())?);
    *request.uri_mut() = Uri::from(uri.path_and_query().ok_or("the address of the ACME server has no path")?.clone());
    let (parts, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, MOST_BYTES).collect().await?.to_bytes();
    Ok(Response::from_parts(parts, Full::new(body)))
}
