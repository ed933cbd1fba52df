"""A cluster as a stranger sees it: stock gRPC stubs, mutual TLS, nothing of ours but the .proto files.

Starts `highwater dev`, then creates a topic, produces (one call and a stream), consumes from every node, and checks
the answers to what is wrong. The exit status is the verdict.

usage: interop.py HIGHWATER_BINARY   (PYTHONPATH holds the generated stubs; see `run` beside this file)
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import grpc
import lz4.frame
import zstandard

try:
    import tomllib
except ImportError:  # before Python 3.11
    import tomli as tomllib

from highwater.v1 import cluster_pb2, cluster_pb2_grpc, log_pb2, log_pb2_grpc, topic_pb2, topic_pb2_grpc

START_DEADLINE_S = 90
STOP_DEADLINE_S = 30
CALL_DEADLINE_S = 20
POLL_S = 0.1
TOPIC = "interop"


@contextlib.contextmanager
def dev_cluster(binary, data_dir):
    """A cluster of three nodes in `data_dir`; yields its client profile as (directory, contents)."""
    log_path = data_dir.with_suffix(".log")
    with open(log_path, "wb") as log:
        command = [binary, "dev", "--nodes", "3", "--port", "0", "--data-dir", str(data_dir)]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        profile = wait_for(lambda: read_profile(process, data_dir / "profile.toml", log_path), "the client profile")
        yield data_dir, profile
    except BaseException:
        print(log_path.read_text(errors="replace"), file=sys.stderr)
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert status == 0, f"highwater dev ended with status {status}"


def read_profile(process, path, log_path):
    if process.poll() is not None:
        raise RuntimeError(f"highwater dev ended with status {process.returncode}; see {log_path}")
    return tomllib.loads(path.read_text()) if path.exists() else None


def wait_for(probe, what, deadline_s=START_DEADLINE_S):
    """Asks `probe` until it answers something other than None."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        answer = probe()
        if answer is not None:
            return answer
        time.sleep(POLL_S)
    raise TimeoutError(f"waited {deadline_s} s in vain for {what}")


class Node:
    """The services of one node."""

    def __init__(self, address, credentials):
        # Every node certificate carries the name localhost, whatever the node's address is.
        options = [("grpc.ssl_target_name_override", "localhost")]
        self.address = address
        self.channel = grpc.secure_channel(address, credentials, options)
        self.log = log_pb2_grpc.LogServiceStub(self.channel)
        self.topics = topic_pb2_grpc.TopicServiceStub(self.channel)
        self.cluster = cluster_pb2_grpc.ClusterServiceStub(self.channel)

    def describe(self):
        return self.cluster.DescribeCluster(cluster_pb2.DescribeClusterRequest(), timeout=CALL_DEADLINE_S)


def credentials_of(directory, profile):
    read = lambda field: (directory / profile[field]).read_bytes()
    return grpc.ssl_channel_credentials(read("ca"), read("key"), read("cert"))


def serving(node):
    """The node, once it answers and sees all three nodes."""
    try:
        described = node.describe()
    except grpc.RpcError:
        return None
    return node if len(described.nodes) == 3 else None


def leader_of(nodes, topic, partition):
    """The node that leads the partition, found with the public calls alone."""
    def probe():
        try:
            described = nodes[0].topics.GetTopic(topic_pb2.GetTopicRequest(topic=topic), timeout=CALL_DEADLINE_S)
            addresses = {node.name: node.address for node in nodes[0].describe().nodes}
        except grpc.RpcError:
            return None
        address = addresses.get(described.topic.partitions[partition].leader)
        port = address and address.rsplit(":", 1)[1]
        return next((node for node in nodes if port and node.address.endswith(":" + port)), None)
    return wait_for(probe, f"a leader of partition {partition}")


def batch(producer_id, sequence, values, request_id=0):
    records = [
        log_pb2.Record(key=b"key", value=value, headers=[log_pb2.Header(name="language", value=b"python")])
        for value in values
    ]
    return log_pb2.ProduceRequest(
        topic=TOPIC,
        partition=0,
        producer_id=producer_id,
        sequence=sequence,
        record_count=len(records),
        batch=log_pb2.RecordBatch(records=records),
        request_id=request_id,
    )


# No leader at the moment, another leader, or the outcome is unknown: on a busy machine a leader may change at any time.
# A retry is harmless, because a batch that is known already is answered like the first time.
RETRYABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ABORTED)


def at_leader(nodes, call):
    """What `call` answers at the leader of partition 0, and whether it took more than one try."""
    tries = 0

    def attempt():
        nonlocal tries
        tries += 1
        try:
            return call(leader_of(nodes, TOPIC, 0))
        except grpc.RpcError as error:
            if error.code() not in RETRYABLE:
                raise
            return None

    return wait_for(attempt, "the leader to answer"), tries > 1


def check_produce(nodes, producer_id, values):
    first = batch(producer_id, 0, values)
    answer, retried = at_leader(nodes, lambda leader: leader.log.Produce(first, timeout=CALL_DEADLINE_S))
    assert answer.base_offset == 0 and (retried or not answer.duplicate), answer
    again, _ = at_leader(nodes, lambda leader: leader.log.Produce(first, timeout=CALL_DEADLINE_S))
    assert (again.base_offset, again.duplicate) == (0, True), f"a retry must be answered like the first try: {again}"


def check_produce_stream(nodes, producer_id, batches, next_offset):
    requests = [batch(producer_id, 1 + number, values, 100 + number) for number, values in enumerate(batches)]

    def stream(leader):
        answers = list(leader.log.ProduceStream(iter(requests), timeout=CALL_DEADLINE_S))
        # Batches that a former leader refused are sent again, all in order.
        appended = all(answer.WhichOneof("result") == "appended" for answer in answers)
        return answers if appended and len(answers) == len(requests) else None

    answers, _ = at_leader(nodes, stream)
    assert [answer.request_id for answer in answers] == [request.request_id for request in requests], answers
    for answer, values in zip(answers, batches):
        assert answer.WhichOneof("result") == "appended", answer
        assert answer.appended.base_offset == next_offset, answer
        next_offset += len(values)
    return next_offset


def consume(node, end):
    """The values of offsets 0 to `end` (exclusive) as this node serves them, and the node's name."""
    freshness = log_pb2.Freshness(min_offset=end)
    request = log_pb2.ConsumeRequest(topic=TOPIC, partition=0, offset=0, freshness=freshness)
    stream = node.log.Consume(request, timeout=CALL_DEADLINE_S)
    values, served_by = [], None
    for response in stream:
        served_by = response.node
        for stored in response.batches:
            assert stored.base_offset == len(values), f"offsets must be dense: {stored.base_offset}, {len(values)}"
            assert stored.record_count == len(stored.batch.records)
            assert all(record.headers[0].value == b"python" for record in stored.batch.records)
            values += [record.value for record in stored.batch.records]
        if len(values) >= end:
            break
    stream.cancel()
    return values, served_by


# How a frame of each method is made and undone with the usual Python packages.
METHODS = {
    log_pb2.COMPRESSION_LZ4: (lz4.frame.compress, lz4.frame.decompress),
    log_pb2.COMPRESSION_ZSTD: (
        lambda content: zstandard.ZstdCompressor().compress(content),
        lambda frame: zstandard.ZstdDecompressor().decompressobj().decompress(frame),
    ),
}


def check_compression(binary, nodes, directory, end):
    """Batches compressed here are read by the command line, and the other way round."""
    lines = [b"compressed line %d, much like the others" % number for number in range(200)]
    producer_id = os.urandom(16)
    for sequence, (method, (compress, _)) in enumerate(METHODS.items()):
        request = batch(producer_id, sequence, lines)
        frame = compress(request.batch.SerializeToString())
        request.batch.CopyFrom(log_pb2.RecordBatch(compressed_records=frame))
        request.compression = method
        at_leader(nodes, lambda leader: leader.log.Produce(request, timeout=CALL_DEADLINE_S))
    profile = ["--profile", str(directory / "profile.toml")]
    consume_them = [binary, "consume", TOPIC, "--partition", "0", "--from", str(end), "--exit-at-end", *profile]
    read = subprocess.run(consume_them, capture_output=True, check=True, timeout=CALL_DEADLINE_S)
    assert read.stdout.splitlines() == lines * len(METHODS), read.stdout[:200]
    end += len(lines) * len(METHODS)

    for name in ("lz4", "zstd"):
        send = [binary, "produce", TOPIC, "--partition", "0", "--compression", name, *profile]
        text = b"\n".join(lines) + b"\n"
        subprocess.run(send, input=text, check=True, timeout=CALL_DEADLINE_S)
    stored = stored_from(nodes[0], end, end + 2 * len(lines))
    assert {one.compression for one in stored} == set(METHODS), [one.compression for one in stored]
    values = []
    for one in stored:
        _, inflate = METHODS[one.compression]
        content = log_pb2.RecordBatch.FromString(inflate(one.batch.compressed_records))
        assert len(content.records) == one.record_count
        values += [record.value for record in content.records]
    assert values == lines * 2, values[:3]


def stored_from(node, begin, end):
    """The batches with the offsets from `begin` to `end` (exclusive)."""
    freshness = log_pb2.Freshness(min_offset=end)
    request = log_pb2.ConsumeRequest(topic=TOPIC, partition=0, offset=begin, freshness=freshness)
    stream = node.log.Consume(request, timeout=CALL_DEADLINE_S)
    stored = []
    for response in stream:
        stored += response.batches
        if stored and stored[-1].base_offset + stored[-1].record_count >= end:
            break
    stream.cancel()
    return stored


def check_refused(call, code):
    try:
        answer = call()
    except grpc.RpcError as error:
        assert error.code() == code, f"{error.code()} in place of {code}: {error.details()}"
        assert error.details(), "an error must say what to do"
    else:
        raise AssertionError(f"{answer} in place of {code}")


def check_refusals(node, directory, profile):
    unknown = topic_pb2.GetTopicRequest(topic="unknown")
    check_refused(lambda: node.topics.GetTopic(unknown, timeout=CALL_DEADLINE_S), grpc.StatusCode.NOT_FOUND)
    again = topic_pb2.CreateTopicRequest(topic=TOPIC, partitions=1)
    check_refused(lambda: node.topics.CreateTopic(again, timeout=CALL_DEADLINE_S), grpc.StatusCode.ALREADY_EXISTS)
    bad = topic_pb2.CreateTopicRequest(topic="Not/A/Name", partitions=1)
    check_refused(lambda: node.topics.CreateTopic(bad, timeout=CALL_DEADLINE_S), grpc.StatusCode.INVALID_ARGUMENT)
    anonymous = Node(node.address, grpc.ssl_channel_credentials((directory / profile["ca"]).read_bytes()))
    check_refused(anonymous.describe, grpc.StatusCode.UNAVAILABLE)


def check_tools(node):
    """What grpcurl and its like build on: health, and reflection in the version of today and the one before."""
    raw = lambda message: message
    health = node.channel.unary_unary("/grpc.health.v1.Health/Check", raw, raw)
    serving = b"\x08\x01"
    wait_for(lambda: health(b"", timeout=CALL_DEADLINE_S) == serving or None, "the health service to say SERVING")
    list_services = b"\x3a\x01*"
    for version in ("v1", "v1alpha"):
        ask = node.channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo", raw, raw)
        answer = next(iter(ask(iter([list_services]), timeout=CALL_DEADLINE_S)))
        for service in (b"highwater.v1.LogService", b"highwater.v1.TopicService", b"grpc.health.v1.Health"):
            assert service in answer, f"reflection {version} does not tell of {service}: {answer}"


def check_cluster(binary, directory, profile):
    credentials = credentials_of(directory, profile)
    nodes = [Node(address, credentials) for address in profile["addresses"]]
    for node in nodes:
        wait_for(lambda: serving(node), f"{node.address} to see three nodes")
    say(f"{len(nodes)} nodes answer over mutual TLS")
    check_tools(nodes[0])
    say("health and reflection answer")

    request = topic_pb2.CreateTopicRequest(topic=TOPIC, partitions=2, replication=3)
    created = nodes[0].topics.CreateTopic(request, timeout=CALL_DEADLINE_S).topic
    assert len(created.partitions) == 2 and all(len(it.replicas) == 3 for it in created.partitions), created
    say(f"topic {created.name} has id {created.topic_id}")

    producer_id = os.urandom(16)
    first = [b"one", b"two", bytes(range(256))]
    batches = [[b"stream %d/%d" % (number, record) for record in range(10)] for number in range(20)]
    check_produce(nodes, producer_id, first)
    end = check_produce_stream(nodes, producer_id, batches, len(first))
    say(f"{end} records produced, one batch twice")

    expected = first + [value for values in batches for value in values]
    served_by = set()
    for node in nodes:
        values, name = consume(node, end)
        assert values == expected, f"{name} serves other records than were produced"
        served_by.add(name)
    assert len(served_by) == 3, served_by
    say(f"the same {end} records consumed from {', '.join(sorted(served_by))}")

    latest = log_pb2.ListOffsetsRequest(topic=TOPIC, partition=0, latest=True)
    answer, _ = at_leader(nodes, lambda leader: leader.log.ListOffsets(latest, timeout=CALL_DEADLINE_S))
    offset = answer.offset
    assert offset == end, f"the latest offset is {offset} in place of {end}"

    check_compression(binary, nodes, directory, end)
    say("compressed batches go both ways")

    check_refusals(nodes[0], directory, profile)
    nodes[0].topics.DeleteTopic(topic_pb2.DeleteTopicRequest(topic=TOPIC), timeout=CALL_DEADLINE_S)
    say("what is wrong is refused, and the topic is deleted")


def say(text):
    print(f"interop: {text}", flush=True)


def main():
    binary = sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="highwater-interop-") as scratch:
        with dev_cluster(binary, pathlib.Path(scratch) / "cluster") as (directory, profile):
            check_cluster(binary, directory, profile)
    say("passed")


if __name__ == "__main__":
    main()
