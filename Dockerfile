# syntax=docker/dockerfile:1
# One static program and nothing else: `docker build -t tidegate .`

FROM rust:1.95-alpine AS build
# A C compiler, for the cryptography under TLS.
RUN apk add --no-cache build-base
WORKDIR /src
COPY . .
# The registry and what was built before stay with the builder, so a second build takes what changed.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    CARGO_PROFILE_RELEASE_STRIP=debuginfo cargo build --release --locked --bin tidegate \
    && cp target/release/tidegate /tidegate

FROM scratch
LABEL org.opencontainers.image.title="tidegate" \
      org.opencontainers.image.description="An Envoy xDS control plane that gives every game server its own host and path" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY LICENSE /LICENSE
COPY --from=build /tidegate /tidegate
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
ENTRYPOINT [ "/tidegate" ]
