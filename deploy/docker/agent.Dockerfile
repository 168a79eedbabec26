# The agent. NVML comes from the host: run it with the NVIDIA runtime, which mounts libnvidia-ml.so.1.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --locked --profile dist --package entrenar-agent

FROM debian:bookworm-slim
RUN useradd --system --uid 65532 --home-dir /nonexistent entrenar
COPY --from=build /src/target/dist/entrenar-agent /usr/local/bin/entrenar-agent
# The driver's management library is all that is asked for.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=utility
USER 65532:65532
EXPOSE 9400
ENTRYPOINT ["/usr/local/bin/entrenar-agent"]
