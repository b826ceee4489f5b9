# The image of hawkgate: one static binary, the public CAs, and nothing else.
#
#   docker build --build-arg REVISION="$(git rev-parse HEAD)" --tag registry.example.com/hawkgate:0.1.0 .
#
# For a build that can be repeated, name the base by digest:
#   --build-arg RUST_IMAGE=docker.io/library/rust@sha256:…
# glibc, linked in: the same C library and target that the tests run with. Since 2.34 it has the
# resolvers of /etc/hosts and of DNS inside, so names are found although nothing else is here;
# other resolvers, which an nsswitch.conf may name, are not to be had.
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
# The target is named so that the flags are not for build scripts too. Relative relocations,
# packed, are a tenth as large; a linker that cannot do so warns. Equal functions are kept once
# where Rust's own linker, which can do that, is the usual one. rustup is to take the toolchain that
# the base has: it would fetch rustfmt and clippy first, which rust-toolchain.toml names for developers.
RUN case "$(uname -m)" in x86_64) fold="-C link-arg=-Wl,--icf=safe" ;; *) fold="" ;; esac \
 && RUSTUP_AUTO_INSTALL=0 HAWKGATE_REVISION="${REVISION}" \
    RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs ${fold}" \
    cargo build --release --locked --bin hawkgate --target "$(uname -m)-unknown-linux-gnu" \
 && mkdir -p /image/etc/ssl/certs \
 && cp "target/$(uname -m)-unknown-linux-gnu/release/hawkgate" /image/hawkgate \
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
