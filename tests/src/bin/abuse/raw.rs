//! TLS and HTTP/2 by hand, for what no library would send.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use crate::Failure;

pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// How long an attacker waits for anything.
const PATIENCE: Duration = Duration::from_millis(500);
/// Where attackers come from.
const OWN_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const END_STREAM: u8 = 1;

/// With the victim's certificate, or with none.
pub(crate) fn tls_config(certificates: &str, with_own: bool) -> Result<Arc<ClientConfig>, Failure> {
    let directory = Path::new(certificates);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(directory.join("ca.pem"))?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    let mut config = if with_own {
        let chain =
            CertificateDer::pem_file_iter(directory.join("client-acme-app.pem"))?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(directory.join("client-acme-app.key"))?;
        builder.with_client_auth_cert(chain, key)?
    } else {
        builder.with_no_client_auth()
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// From an address of the attackers' own, as they would have on machines of their own.
pub(crate) fn tcp(address: &str) -> io::Result<TcpStream> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let connecting = async {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((OWN_ADDRESS, 0)))?;
        timeout(PATIENCE, socket.connect(address)).await?
    };
    let tcp = runtime.block_on(connecting)?.into_std()?;
    tcp.set_nonblocking(false)?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    tcp.set_write_timeout(Some(PATIENCE))?;
    Ok(tcp)
}

/// A handshake to its end, whatever comes of it.
pub(crate) fn handshake(address: &str, config: &Arc<ClientConfig>) -> io::Result<Tls> {
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let mut connection = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
    let mut tcp = tcp(address)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut tcp)?;
    }
    Ok(StreamOwned::new(connection, tcp))
}

/// A connection on which HTTP/2 has begun.
pub(crate) fn http2(address: &str, config: &Arc<ClientConfig>) -> io::Result<Tls> {
    let mut stream = handshake(address, config)?;
    stream.write_all(PREFACE)?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
    // Room for whatever is answered.
    stream.write_all(&frame(WINDOW_UPDATE, 0, 0, &0x3fff_0000_u32.to_be_bytes()))?;
    Ok(stream)
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(body);
    frame
}

/// The head of a call, by HPACK without a table: method, scheme, path, and more.
pub(crate) fn head(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut head = vec![0x83, 0x87]; // POST, https
    let fields = [
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    for (name, value) in fields.iter().chain(more) {
        head.push(0); // literal, not indexed, new name
        for text in [name, value] {
            length(&mut head, text.len());
            head.extend(text.as_bytes());
        }
    }
    head
}

/// An integer with a prefix of seven bits (RFC 7541, 5.1).
fn length(out: &mut Vec<u8>, mut value: usize) {
    if value < 127 {
        return out.push(value as u8);
    }
    out.push(127);
    value -= 127;
    while value >= 128 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes what has come, so that nobody waits for us; false once the connection has ended.
pub(crate) fn drain(stream: &mut Tls) -> bool {
    let mut buffer = [0; 16 * 1024];
    if stream.sock.set_nonblocking(true).is_err() {
        return false;
    }
    let open = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break false,
            Ok(_) => {}
            Err(error) => break error.kind() == io::ErrorKind::WouldBlock,
        }
    };
    open && stream.sock.set_nonblocking(false).is_ok()
}
