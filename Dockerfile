# syntax=docker/dockerfile:1

FROM rust:1-bookworm AS build
WORKDIR /source
COPY . .
# The two caches outlive the build, so that a change of ours does not compile every dependency again. They are not part of
# the image, which is why the programs are copied out in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/source/target,sharing=locked \
    cargo build --release --locked --bins \
    && install -D -t /programs target/release/overwire target/release/make_fake_users

# The same Debian as the build, for its C library. SQLite, pages and static files are inside the program.
FROM debian:bookworm-slim
RUN useradd --user-group --uid 10001 --no-create-home --shell /usr/sbin/nologin overwire \
    && install -d -o overwire -g overwire -m 0750 /data
COPY --from=build /programs/ /usr/local/bin/

# By number: a cluster that insists on a user other than root cannot look a name up.
USER 10001
# A new volume takes over the owner of the folder it covers.
VOLUME /data
WORKDIR /data
# Inside a container the loopback address would be reachable by nobody else.
ENV OVERWIRE_LISTEN=0.0.0.0:8000 \
    OVERWIRE_DATABASE=/data/overwire.db
EXPOSE 8000

# The program asks itself: the image has nothing else that speaks HTTP.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 CMD ["overwire", "healthcheck"]

CMD ["overwire"]
