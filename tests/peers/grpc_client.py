"""A gRPC client on the C core, for tests/it/grpc.rs: `grpc_client.py ADDRESS BEARER [CA]`.

Calls every method of grpc_server.py and prints the results as one JSON object. The server's name is localhost.
"""

import json
import queue
import sys

import grpc

TIMEOUT = 45
address, bearer = sys.argv[1:3]
# Otherwise the C core would use the proxy that the environment names.
options = [("grpc.enable_http_proxy", 0), ("grpc.default_authority", "localhost")]
if len(sys.argv) > 3:
    with open(sys.argv[3], "rb") as ca:
        credentials = grpc.ssl_channel_credentials(ca.read())
    options.append(("grpc.ssl_target_name_override", "localhost"))
    channel = grpc.secure_channel(address, credentials, options)
else:
    channel = grpc.insecure_channel(address, options)
authorization = ("authorization", f"Bearer {bearer}")


def text(value):
    return value.hex() if isinstance(value, bytes) else value


def metadata(pairs):
    # A proxy has to add Date (RFC 9110 §6.6.1).
    return {key: text(value) for key, value in pairs or () if key != "date"}


def outcome(call):
    return {
        "code": call.code().name,
        "details": call.details(),
        "initial": metadata(call.initial_metadata()),
        "trailing": metadata(call.trailing_metadata()),
    }


def unary(method, request, timeout=TIMEOUT, extra=()):
    call = channel.unary_unary(f"/test.Echo/{method}")
    try:
        response, call = call.with_call(request, timeout=timeout, metadata=(authorization, *extra))
    except grpc.RpcError as error:
        return outcome(error)
    return {"response": response.decode()[:20], "bytes": len(response), **outcome(call)}


def stream(method, request):
    call = channel.unary_stream(f"/test.Echo/{method}")
    call = call(request, timeout=TIMEOUT, metadata=(authorization,))
    messages = []
    try:
        for message in call:
            messages.append(len(message))
    except grpc.RpcError:
        pass
    return {"messages": len(messages), "bytes": sum(messages), **outcome(call)}


def cancel():
    """Cancels a call once its first message has arrived."""
    call = channel.unary_stream("/test.Echo/HangingStream")
    call = call(b"", metadata=(authorization,))
    try:
        next(call)
    except grpc.RpcError:
        return outcome(call)
    call.cancel()
    return outcome(call)


def client_stream(messages):
    call = channel.stream_unary("/test.Echo/ClientStream")
    try:
        response, call = call.with_call(iter(messages), timeout=TIMEOUT, metadata=(authorization,))
    except grpc.RpcError as error:
        return outcome(error)
    return {"response": response.decode(), **outcome(call)}


def ping_pong(rounds):
    """Sends each message only after the answer to the one before."""
    requests = queue.SimpleQueue()
    call = channel.stream_stream("/test.Echo/PingPong")
    call = call(iter(requests.get, None), timeout=TIMEOUT, metadata=(authorization,))
    answers = []
    try:
        for index in range(rounds):
            requests.put(b"%d" % index)
            answers.append(next(call).decode())
        requests.put(None)
        answers.extend(message.decode() for message in call)
    except grpc.RpcError:
        requests.put(None)
    return {"answers": answers, **outcome(call)}


results = {
    "unary": unary("Unary", b"hello", extra=(("x-request", "ascii"), ("x-request-bin", b"\x00\xff"))),
    "large": unary("Unary", b"y" * 300_000, extra=(("x-request", "large"),)),
    "empty": unary("Unary", b""),
    "server_stream": stream("ServerStream", b"200 10000"),
    "empty_stream": stream("ServerStream", b"0 0"),
    "client_stream": client_stream([b"z" * 10_000] * 200),
    "empty_client_stream": client_stream([]),
    "ping_pong": ping_pong(5),
    "failing": unary("Failing", b""),
    "failing_late": stream("FailingLate", b""),
    "unknown": unary("Unknown", b""),
    "deadline": {"code": unary("Hanging", b"", timeout=0.5)["code"]},
    "cancelled": cancel(),
    "noticed": unary("AwaitCancellation", b""),
}
print(json.dumps(results))
