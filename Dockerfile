# The images for those who build with a container daemon (BuildKit, so that the capability below survives COPY):
#
#   docker build --target herald-controller --tag heraldlb/herald-controller:dev .
#   docker build --target herald-speaker    --tag heraldlb/herald-speaker:dev .
#
# with --platform linux/amd64,linux/arm64 for both architectures: the programs are cross-compiled, nothing is emulated.
# `make image` needs no daemon and is what releases are made with; the programs in both come from the same build.

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
    && mkdir -p /image/etc \
    && cp target/*-unknown-linux-musl/dist/herald-controller target/*-unknown-linux-musl/dist/herald-speaker /image/ \
    && echo 'herald:x:65532:65532:Herald:/:/sbin/nologin' > /image/etc/passwd \
    && echo 'herald:x:65532:' > /image/etc/group \
    # On the speaker only: a program whose file has a capability that its container may not have does not start.
    && setcap cap_net_raw=ep /image/herald-speaker

FROM scratch AS herald-controller
COPY --from=build /image/etc /etc
COPY --from=build /image/herald-controller /herald-controller
# In numbers: the kubelet's runAsNonRoot cannot judge a name.
USER 65532:65532
ENTRYPOINT ["/herald-controller"]

FROM scratch AS herald-speaker
COPY --from=build /image/etc /etc
COPY --from=build /image/herald-speaker /herald-speaker
USER 65532:65532
ENTRYPOINT ["/herald-speaker"]
