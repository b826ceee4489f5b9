"""A gRPC server on the C core, for tests/it/grpc.rs: `grpc_server.py [CERTIFICATE KEY]`.

Prints its port, and stops when its standard input closes. Messages are plain bytes.
"""

import sys
import threading
from concurrent import futures

import grpc

cancelled = threading.Event()


def unary(request, context):
    received = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-initial", received.get("x-request", "none")),))
    trailing = [("x-trailing-bin", received.get("x-request-bin", b""))]
    scheme = received.get("authorization", "none").split(" ")[0]
    trailing.append(("x-authorization", scheme))
    context.set_trailing_metadata(trailing)
    return request


def server_stream(request, context):
    count, size = (int(number) for number in request.split())
    for index in range(count):
        yield b"%d" % index + b"x" * size


def client_stream(requests, context):
    return b"%d" % sum(len(request) for request in requests)


def ping_pong(requests, context):
    for request in requests:
        yield b"pong " + request


def failing(request, context):
    context.set_trailing_metadata((("x-trailing", "of a failure"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "précondition: 100 %")


def failing_late(request, context):
    yield b"one"
    context.abort(grpc.StatusCode.DATA_LOSS, "after one message")


def hanging(request, context):
    ended = threading.Event()
    context.add_callback(ended.set)
    ended.wait()
    return b""


def hanging_stream(request, context):
    context.add_callback(cancelled.set)
    yield b"started"
    cancelled.wait()


def await_cancellation(request, context):
    return b"cancelled" if cancelled.wait(30) else b"not cancelled"


METHODS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
    "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
    "PingPong": grpc.stream_stream_rpc_method_handler(ping_pong),
    "Failing": grpc.unary_unary_rpc_method_handler(failing),
    "FailingLate": grpc.unary_stream_rpc_method_handler(failing_late),
    "Hanging": grpc.unary_unary_rpc_method_handler(hanging),
    "HangingStream": grpc.unary_stream_rpc_method_handler(hanging_stream),
    "AwaitCancellation": grpc.unary_unary_rpc_method_handler(await_cancellation),
}


def main():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", METHODS),))
    if len(sys.argv) > 1:
        with open(sys.argv[1], "rb") as certificate, open(sys.argv[2], "rb") as key:
            pair = (key.read(), certificate.read())
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(0)


main()
