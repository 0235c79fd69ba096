# syntax=docker/dockerfile:1.7
# The server alone: a stripped binary, the certificates it trusts, curl for the health check, an ordinary user.

FROM rust:1.95.0-slim-bookworm AS build
# The image has this toolchain; rust-toolchain.toml would add the components that only developers need.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --locked --profile dist --bin hydrant \
    && install -D target/dist/hydrant /out/hydrant

FROM debian:12.15-slim
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/hydrant --shell /usr/sbin/nologin hydrant \
    && install -d -o hydrant -g hydrant -m 0700 /var/lib/hydrant
COPY --from=build /out/hydrant /usr/local/bin/hydrant
COPY LICENSE /usr/share/doc/hydrant/LICENSE
USER 10001
WORKDIR /var/lib/hydrant
VOLUME /var/lib/hydrant
EXPOSE 4573
STOPSIGNAL SIGTERM
ENTRYPOINT ["hydrant"]
CMD ["run", "/etc/hydrant/hydrant.yaml", "--data", "/var/lib/hydrant"]
