//! Every limit of the wire, in one place. The server enforces them, the client library respects them, and the
//! documentation quotes them.

/// The longest key of a record, bytes.
pub const RECORD_KEY_BYTES_MAX: usize = 64 * 1024;
/// The largest encoded record, bytes: key, value, headers and their framing.
pub const RECORD_BYTES_MAX: usize = BATCH_BYTES_MAX - 16;
/// The largest batch as sent, bytes (after compression).
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// The most records in a batch.
pub const BATCH_RECORDS_MAX: u32 = 65_536;
/// The largest batch after decompression, bytes: consumers refuse to inflate further.
pub const BATCH_INFLATED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The most headers of a record.
pub const RECORD_HEADERS_MAX: usize = 64;
/// The longest name of a header, bytes.
pub const HEADER_NAME_BYTES_MAX: usize = 255;
/// The largest gRPC message in either direction, bytes.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What one response of a Consume stream carries at most unless a single batch is larger, bytes.
pub const CONSUME_BYTES_MAX: usize = 1024 * 1024;
/// The longest name of a topic, tenant, node or client, bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// The most partitions of a topic.
pub const TOPIC_PARTITIONS_MAX: u32 = 1_024;
/// The most topics a tenant may have.
pub const TENANT_TOPICS_MAX: usize = 10_000;
/// The most replicas of a partition.
pub const REPLICATION_MAX: u32 = 7;
/// The most batches that a producer may have in flight for one partition: as many as a replica remembers.
pub const PRODUCER_BATCHES_IN_FLIGHT_MAX: usize = 8;
/// The most streams on one connection.
pub const CONNECTION_STREAMS_MAX: u32 = 128;
/// The most bytes of batches that one ProduceStream may have in flight before the server stops reading it.
pub const STREAM_IN_FLIGHT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The most bytes of request headers.
pub const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;
/// The longest time for which a producer may retry a batch, milliseconds. A replica never forgets a producer
/// that it heard from within this time.
pub const DELIVERY_DEADLINE_MS_MAX: u64 = 10 * 60 * 1000;
/// After what silence a member of a group may ask to be taken out, milliseconds, least and most.
pub const GROUP_SESSION_MS: (u32, u32) = (1_000, 300_000);
/// How long a member of a group may ask to keep a partition that it is to let go of, milliseconds, least and most.
pub const GROUP_RELEASE_MS: (u32, u32) = (1_000, 3_600_000);

const _: () = assert!(RECORD_BYTES_MAX < BATCH_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX * 2 <= MESSAGE_BYTES_MAX);
const _: () = assert!(CONSUME_BYTES_MAX + BATCH_BYTES_MAX < MESSAGE_BYTES_MAX);
