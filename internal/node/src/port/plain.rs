//! A short HTTP/1.1 answer for those who speak plain HTTP on the TLS port.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// How much of a request is read before it is answered, bytes.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// How long to wait for the rest of a request, and for the other side to close.
const PATIENCE: Duration = Duration::from_secs(1);

/// To a request without TLS.
pub(super) const SPEAKS_TLS: (&str, &str) = (
    "400 Bad Request",
    r#"{"error":"tls_required","message":"this port speaks TLS with client certificates"}"#,
);

/// Reads the request's head, answers and closes. Errors mean that the other side has gone, which is all right.
pub(super) async fn answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), (status, body): (&str, &str)) {
    let _ = timeout(PATIENCE, read_head(stream)).await;
    let length = body.len() + 1;
    let response = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}\n"
    );
    if let Ok(Ok(())) = timeout(PATIENCE, write(stream, response.as_bytes())).await {
        // Closing with unread bytes would reset the connection, and the answer might be lost with it.
        let _ = timeout(PATIENCE, discard(stream)).await;
    }
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), response: &[u8]) -> std::io::Result<()> {
    stream.write_all(response).await?;
    stream.shutdown().await
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while head.len() < REQUEST_BYTES_MAX && !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            break;
        }
        head.extend_from_slice(&buffer[..count]);
    }
    Ok(())
}

async fn discard(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    let mut discarded = 0;
    while discarded < REQUEST_BYTES_MAX {
        match stream.read(&mut buffer).await? {
            0 => break,
            count => discarded += count,
        }
    }
    Ok(())
}
