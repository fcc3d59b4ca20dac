# The images for those who build with a container daemon (BuildKit, so that the capability below survives COPY):
#
#   docker build --target herald-controller --tag heraldlb/herald-controller:dev --build-arg REVISION="$(git rev-parse HEAD)" .
#   docker build --target herald-speaker    --tag heraldlb/herald-speaker:dev    --build-arg REVISION="$(git rev-parse HEAD)" .
#
# with --platform linux/amd64,linux/arm64 for both architectures: the programs are cross-compiled, nothing is emulated.
# `make image` needs no daemon and is what releases are made with; the files in both come from the same build.

FROM --platform=$BUILDPLATFORM rust:1.95.0-bookworm AS build
# setcap; pip, which gets the C compiler named in hack/zig.txt.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libcap2-bin python3-pip \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /herald
COPY . .
ARG TARGETARCH
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/root/.cache \
    --mount=type=cache,target=/herald/target,id=herald-target-$TARGETARCH \
    make image ARCH="$TARGETARCH" \
    # Its archives' only layers: program, user and licences.
    && for program in herald-controller herald-speaker; do \
        mkdir -p "/archive/$program" "/image/$program" \
        && tar -xf "dist/images/$program-linux-$TARGETARCH.tar" -C "/archive/$program" \
        && layer=$(sed -n 's/.*"Layers":\["\([^"]*\)"\].*/\1/p' "/archive/$program/manifest.json") \
        && tar -xzf "/archive/$program/$layer" -C "/image/$program" || exit 1; \
    done \
    # On the speaker only: a program whose file has a capability that its container may not have does not start.
    && setcap cap_net_raw=ep /image/herald-speaker/herald-speaker

FROM scratch AS herald-controller
ARG REVISION=unknown
LABEL org.opencontainers.image.title="herald-controller" \
    org.opencontainers.image.description="Gives Services of type LoadBalancer their addresses" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.source="https://github.com/heraldlb/herald" \
    org.opencontainers.image.revision="$REVISION"
COPY --from=build /image/herald-controller/ /
# In numbers: the kubelet's runAsNonRoot cannot judge a name.
USER 65532:65532
ENTRYPOINT ["/herald-controller"]

FROM scratch AS herald-speaker
ARG REVISION=unknown
LABEL org.opencontainers.image.title="herald-speaker" \
    org.opencontainers.image.description="Answers for load balancer addresses on a node's LAN" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.source="https://github.com/heraldlb/herald" \
    org.opencontainers.image.revision="$REVISION"
COPY --from=build /image/herald-speaker/ /
USER 65532:65532
ENTRYPOINT ["/herald-speaker"]
