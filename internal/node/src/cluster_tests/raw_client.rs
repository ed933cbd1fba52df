//! Calls by their names, with messages as bytes: for tests about every method that there is.

use std::future::ready;

use bytes::{Buf, BufMut};
use futures::StreamExt;
use futures::stream::{once, pending};
use http::uri::PathAndQuery;
use prost_types::FileDescriptorSet;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Status};

use super::*;

/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// How long to wait for the first answer on a stream that is open.
const FIRST_ANSWER: Duration = Duration::from_secs(2);

/// A method as its descriptor has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Method {
    /// `/package.Service/Method`.
    pub(super) path: String,
    /// Whether its caller sends a stream.
    pub(super) takes_stream: bool,
}

/// All methods of a set of descriptors.
pub(super) fn methods(descriptors: &[u8]) -> Vec<Method> {
    let set = FileDescriptorSet::decode(descriptors).unwrap();
    let services = set
        .file
        .iter()
        .flat_map(|file| file.service.iter().map(move |service| (file, service)));
    let methods = services.flat_map(|(file, service)| {
        service.method.iter().map(move |method| Method {
            path: format!("/{}.{}/{}", file.package(), service.name(), method.name()),
            takes_stream: method.client_streaming(),
        })
    });
    methods.collect()
}

/// The first answer to a request; None if the call is open and nothing has come yet, or has ended without an answer.
pub(super) async fn call(channel: &Channel, method: &Method, request: Bytes) -> Result<Option<Bytes>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let one = once(ready(request));
    // A stream stays open: its end would be a message, too.
    let requests = match method.takes_stream {
        true => one.chain(pending()).boxed(),
        false => one.boxed(),
    };
    let path = PathAndQuery::try_from(method.path.clone()).unwrap();
    let mut request = Request::new(requests);
    request.set_timeout(CALL_TIMEOUT);
    let mut answers = grpc.streaming(request, path, Raw).await?.into_inner();
    timeout(FIRST_ANSWER, answers.message()).await.unwrap_or(Ok(None))
}

/// Bytes as they are.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
