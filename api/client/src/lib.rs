//! The Highwater client library: resolver, picker, producer and consumer.
