# The aggregator, with the board inside, and the `entrenar` command for backups and rules.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --locked --profile dist --package entrenar-aggregator --package entrenar-cli

FROM debian:bookworm-slim
# Roots for TLS to Slack, PagerDuty and webhooks.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates=20230311* \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 65532 --home-dir /nonexistent entrenar \
    && install --directory --owner=65532 --group=65532 /var/lib/entrenar
COPY --from=build /src/target/dist/entrenar-aggregator /src/target/dist/entrenar /usr/local/bin/
USER 65532:65532
VOLUME /var/lib/entrenar
EXPOSE 8470 8471
ENTRYPOINT ["/usr/local/bin/entrenar-aggregator"]
CMD ["--data-dir", "/var/lib/entrenar"]
