//! Typed error details inside a gRPC status.
//!
//! They travel as google.rpc.Status does (`grpc-status-details-bin`), so that the stock error libraries of
//! other languages can read them: <https://google.aip.dev/193>.

use bytes::Bytes;
use prost::Message;
use tonic::{Code, Status};

use crate::v1::ErrorDetail;

/// The type under which an [`ErrorDetail`] travels.
pub const ERROR_DETAIL_TYPE_URL: &str = "type.googleapis.com/highwater.v1.ErrorDetail";

/// google.rpc.Status, as published by the gRPC project (google/rpc/status.proto).
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<RpcAny>,
}

/// google.protobuf.Any.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcAny {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// Makes a status that carries `detail`; its message is the detail's.
pub fn to_status(code: Code, detail: &ErrorDetail) -> Status {
    let rpc_status = RpcStatus {
        code: code as i32,
        message: detail.message.clone(),
        details: vec![RpcAny {
            type_url: ERROR_DETAIL_TYPE_URL.to_owned(),
            value: detail.encode_to_vec().into(),
        }],
    };
    Status::with_details(code, detail.message.clone(), rpc_status.encode_to_vec().into())
}

/// The detail that `status` carries, if it carries one that can be read.
pub fn from_status(status: &Status) -> Option<ErrorDetail> {
    let rpc_status = RpcStatus::decode(status.details()).ok()?;
    let any = rpc_status
        .details
        .iter()
        .find(|any| any.type_url == ERROR_DETAIL_TYPE_URL)?;
    ErrorDetail::decode(any.value.clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::Reason;

    #[test]
    fn a_detail_survives_the_way_through_a_status() {
        let detail = ErrorDetail {
            reason: Reason::NotLeader as i32,
            message: "not the leader".to_owned(),
            ..Default::default()
        };
        let status = to_status(Code::FailedPrecondition, &detail);
        assert_eq!(from_status(&status), Some(detail));
    }

    #[test]
    fn a_status_without_or_with_garbled_details_yields_none() {
        assert_eq!(from_status(&Status::internal("plain")), None);
        let garbled = Status::with_details(Code::Internal, "x", Bytes::from_static(b"\xff\xff\xff"));
        assert_eq!(from_status(&garbled), None);
    }
}
