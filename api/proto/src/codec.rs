//! The encoding of messages in gRPC: prost's, with one check more.
//!
//! A batch is never copied on its way: what is stored and cached is a slice of the very message that brought it, and
//! keeps that whole message in memory. A message that is mostly fields nobody knows would so hold far more memory than
//! it is accounted for, so it is refused where its length is still known.
//!
//! A message to be sent gets its room at once. prost asks for it field by field, and each growth of the buffer copies all the batches
//! that are in it already: 3 % of what reading costs a node.

use std::any::TypeId;
use std::marker::PhantomData;

use bytes::Buf;
use prost::Message;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use crate::detail::to_status;
use crate::v1::{ErrorDetail, Outcome, ProduceRequest, Reason};

/// What a request may hold beside the fields known here, bytes; and as much again as they take.
const UNKNOWN_BYTES_MAX: usize = 256;

/// The codec of all services.
#[derive(Debug)]
pub struct CheckedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for CheckedCodec<T, U> {
    fn default() -> Self {
        CheckedCodec(PhantomData)
    }
}

impl<T, U> Codec for CheckedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = SizedEncoder<T>;
    type Decoder = CheckedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        SizedEncoder(ProstCodec::<T, U>::raw_encoder(BufferSettings::default()))
    }

    fn decoder(&mut self) -> Self::Decoder {
        CheckedDecoder(ProstCodec::<T, U>::raw_decoder(BufferSettings::default()))
    }
}

/// Encodes messages into a buffer that is large enough from the beginning.
#[derive(Debug)]
pub struct SizedEncoder<T>(ProstEncoder<T>);

impl<T: Message + 'static> Encoder for SizedEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.encoded_len());
        self.0.encode(message, buffer)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

/// Decodes messages; refuses produce requests that are padded.
#[derive(Debug)]
pub struct CheckedDecoder<U>(ProstDecoder<U>);

impl<U: Message + Default + 'static> Decoder for CheckedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let message_bytes = bytes.remaining();
        let decoded = self.0.decode(bytes)?;
        match &decoded {
            Some(message) if is_padded(message, message_bytes) => Err(padded(message_bytes)),
            _ => Ok(decoded),
        }
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

fn is_padded<U: Message + 'static>(message: &U, message_bytes: usize) -> bool {
    let is_kept = TypeId::of::<U>() == TypeId::of::<ProduceRequest>();
    is_kept && message_bytes > 2 * message.encoded_len() + UNKNOWN_BYTES_MAX
}

fn padded(message_bytes: usize) -> Status {
    let detail = ErrorDetail {
        reason: Reason::InvalidArgument as i32,
        outcome: Outcome::NotApplied as i32,
        field: "request".to_owned(),
        message: format!("most of the {message_bytes} bytes of the request are fields that are not known here"),
        ..Default::default()
    };
    to_status(Code::InvalidArgument, &detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_produce_request_that_is_mostly_padding_is_padded() {
        let request = ProduceRequest {
            batch: vec![1; 1000].into(),
            ..Default::default()
        };
        let known_bytes = request.encoded_len();
        let limit = 2 * known_bytes + UNKNOWN_BYTES_MAX;
        assert!(!is_padded(&request, limit) && is_padded(&request, limit + 1));
        assert!(!is_padded(&ErrorDetail::default(), 1 << 20), "its bytes are not kept");
    }
}
