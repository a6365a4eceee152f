# syntax=docker/dockerfile:1

# The same version as `rust-version` in Cargo.toml.
FROM rust:1.95-slim-trixie AS build
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
# The two caches are kept between builds, so that a change of the code does not recompile every dependency. They are not part
# of the image, so the programs are copied out of them in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/source/target,sharing=locked \
    cargo build --release --locked --bins \
    && install -D -t /programs target/release/overwire target/release/make_fake_users

# The same Debian release as the build, because the programs use its C library. SQLite, pages and static files are compiled in.
FROM debian:trixie-slim
RUN useradd --user-group --uid 10001 --no-create-home --shell /usr/sbin/nologin overwire \
    && install -d -o overwire -g overwire -m 0750 /data
COPY --from=build /programs/ /usr/local/bin/

# By number, because a cluster that requires a non-root user cannot resolve a name.
USER 10001
# A new volume gets the owner of the directory it covers.
VOLUME /data
WORKDIR /data
# The default, the loopback address, cannot be reached from outside the container.
ENV OVERWIRE_LISTEN=0.0.0.0:8000 \
    OVERWIRE_DATABASE=/data/overwire.db
EXPOSE 8000

# Overwire checks itself, because the image contains no other HTTP client.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 CMD ["overwire", "healthcheck"]

# Arguments are those of the program: `docker run overwire admin link`.
ENTRYPOINT ["overwire"]
