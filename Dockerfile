# The image of hawkgate: one static binary, the public CAs, and nothing else.
#
#   docker build --build-arg REVISION="$(git rev-parse HEAD)" --tag registry.example.com/hawkgate:0.1.0 .
#
# For a build that can be repeated, name the base by digest:
#   --build-arg RUST_IMAGE=docker.io/library/rust@sha256:…
# musl and not glibc: a static glibc cannot look up names, and the smallest base with a dynamic
# one is as large as all of this. mimalloc is the allocator either way.
ARG RUST_IMAGE=docker.io/library/rust:1.95.0-bookworm

FROM ${RUST_IMAGE} AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates cmake musl-tools \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY rust-toolchain.toml ./
RUN rustup target add "$(uname -m)-unknown-linux-musl"
COPY Cargo.toml Cargo.lock README.md ./
COPY src ./src
ARG REVISION=unknown
RUN HAWKGATE_REVISION="${REVISION}" \
    cargo build --release --locked --bin hawkgate --target "$(uname -m)-unknown-linux-musl" \
 && mkdir -p /image/etc/ssl/certs \
 && cp "target/$(uname -m)-unknown-linux-musl/release/hawkgate" /image/hawkgate \
 && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
 && echo 'hawkgate:x:65532:65532::/:/sbin/nologin' > /image/etc/passwd \
 && echo 'hawkgate:x:65532:' > /image/etc/group
# What is promised of the image is checked while it is made.
RUN /image/hawkgate --version \
 && ! readelf --dynamic /image/hawkgate | grep NEEDED \
 && test "$(du --summarize --bytes /image | cut -f1)" -lt 20000000

FROM scratch
ARG REVISION=unknown
LABEL org.opencontainers.image.title="hawkgate" \
      org.opencontainers.image.description="Credential-swapping reverse proxy: OIDC bearer in, Hawk-signed Taskcluster request out, 401s healed" \
      org.opencontainers.image.licenses="MPL-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image/ /
USER 65532:65532
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
# No HEALTHCHECK: there is no shell. Ask http://<host>:9090/readyz, as Kubernetes does.
ENTRYPOINT ["/hawkgate"]
CMD ["run", "--config", "/etc/hawkgate/hawkgate.toml"]
