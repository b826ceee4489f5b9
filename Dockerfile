# The image of hawkgate: one static binary and the public CAs.
#
#   docker build --build-arg REVISION="$(git rev-parse HEAD)" --tag registry.example.com/hawkgate:0.1.0 .
#
# For a reproducible build, name the base image by digest:
#   --build-arg RUST_IMAGE=docker.io/library/rust@sha256:…
# glibc is linked statically: the tests run with the same C library and target. Since 2.34 it
# contains the resolvers for /etc/hosts and DNS, so names resolve without any other file. Other
# resolvers, which an nsswitch.conf may name, are not available.
ARG RUST_IMAGE=docker.io/library/rust:1.95.0-bookworm

FROM ${RUST_IMAGE} AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates cmake \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY rust-toolchain.toml ./
COPY Cargo.toml Cargo.lock README.md ./
COPY src ./src
ARG REVISION=unknown
# --target keeps the flags away from build scripts. Packed relative relocations take a tenth of the
# space; a linker that does not know them warns. Identical functions are folded where Rust's own
# linker is the default, as only that one can. RUSTUP_AUTO_INSTALL=0: rust-toolchain.toml names
# rustfmt and clippy, which rustup would download first and this build does not need.
RUN case "$(uname -m)" in x86_64) fold="-C link-arg=-Wl,--icf=safe" ;; *) fold="" ;; esac \
 && RUSTUP_AUTO_INSTALL=0 HAWKGATE_REVISION="${REVISION}" \
    RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs ${fold}" \
    cargo build --release --locked --bin hawkgate --target "$(uname -m)-unknown-linux-gnu" \
 && mkdir -p /image/etc/ssl/certs \
 && cp "target/$(uname -m)-unknown-linux-gnu/release/hawkgate" /image/hawkgate \
 && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
 && echo 'hawkgate:x:65532:65532::/:/sbin/nologin' > /image/etc/passwd \
 && echo 'hawkgate:x:65532:' > /image/etc/group
# The image starts, is static, and is small.
RUN /image/hawkgate --version \
 && ! readelf --dynamic /image/hawkgate | grep NEEDED \
 && test "$(du --summarize --bytes /image | cut -f1)" -lt 25000000

FROM scratch
ARG REVISION=unknown
LABEL org.opencontainers.image.title="hawkgate" \
      org.opencontainers.image.description="Reverse proxy that verifies OIDC bearer tokens, swaps them for upstream credentials and replays requests that fail with 401" \
      org.opencontainers.image.licenses="MPL-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image/ /
# The allocator returns freed memory at once. It would otherwise wait for the next request of the
# same thread, which may not come.
ENV MIMALLOC_PURGE_DELAY=0
USER 65532:65532
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
# No HEALTHCHECK, because there is no shell: probe http://<host>:9090/readyz instead.
ENTRYPOINT ["/hawkgate"]
CMD ["run", "--config", "/etc/hawkgate/hawkgate.toml"]
