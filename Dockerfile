# docker build -t scamp-gateway:0.1.0 .
# docker run --read-only --tmpfs /tmp -p 8080:8080 -v ./gateway.toml:/etc/scamp-gateway/gateway.toml:ro \
#   -v /etc/scamp:/etc/scamp:ro -v /run/scamp:/run/scamp:ro scamp-gateway:0.1.0
# docs/install.md has more: the demo, `scamp`, the health check, another base.

# A tag may be built anew. To have the very same base each time give it by its digest, too:
# --build-arg PYTHON=python:3.13.16-slim-trixie@sha256:... (docker buildx imagetools inspect TAG).
ARG PYTHON=python:3.13.16-slim-trixie

FROM ${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
RUN python -m venv /opt/build && python -m venv --without-pip /opt/scamp-gateway
# Nothing comes from the index but what the locks name by hash. They change less often than the code.
COPY deploy/image/build.lock deploy/image/gateway.lock ./
RUN /opt/build/bin/pip install --require-hashes --only-binary=:all: -r build.lock \
 && /opt/build/bin/pip --python /opt/scamp-gateway/bin/python \
      install --require-hashes --only-binary=:all: --no-compile -r gateway.lock
COPY pyproject.toml README.md LICENSE ./
COPY scamp scamp
COPY gateway gateway
# With the date of the sources (git log -1 --format=%ct) the wheel is the one of a release.
ARG SOURCE_DATE_EPOCH
# Compiled last, by content and in one order, so that two builds have the same files.
RUN /opt/build/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /opt/build/bin/pip --python /opt/scamp-gateway/bin/python \
      install --no-index --no-deps --no-compile /wheels/*.whl \
 && PYTHONHASHSEED=0 python -m compileall -q --invalidation-mode unchecked-hash /opt/scamp-gateway/lib

FROM ${PYTHON}
# Memory comes back after a crowd with this allocator: docs/capacity.md.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libjemalloc2 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/* /var/log/apt /var/log/dpkg.log
# A configuration is mounted over an empty one, so that it can be done without, too. /run/scamp is for
# the discovery cache: a volume that is mounted there begins with this owner.
RUN groupadd --gid 10001 gateway \
 && useradd --uid 10001 --gid gateway --no-create-home --home-dir / --shell /usr/sbin/nologin gateway \
 && install --directory --owner=gateway --group=gateway /run/scamp \
 && mkdir /etc/scamp-gateway \
 && echo '# Nothing is set here: mount your own over this file.' >/etc/scamp-gateway/gateway.toml
COPY --from=build /opt/scamp-gateway /opt/scamp-gateway
# The admin listener has no authentication: publish 9090 to whoever may watch, and to nobody else.
ENV PATH=/opt/scamp-gateway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONMALLOC=malloc \
    LD_PRELOAD=libjemalloc.so.2 \
    MALLOC_CONF=background_thread:true,dirty_decay_ms:1000 \
    SCAMP_GATEWAY_CONFIG=/etc/scamp-gateway/gateway.toml \
    SCAMP_GATEWAY_ADMIN_BIND=:9090
USER 10001:10001
WORKDIR /
EXPOSE 8080 9090
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
  CMD ["python", "-m", "gateway.health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["scamp-gateway"]
CMD ["run"]
# Last: another revision makes no other layer.
ARG PYTHON
ARG REVISION=unknown
LABEL org.opencontainers.image.title="scamp-gateway" \
      org.opencontainers.image.description="HTTP gateway for a mesh of SCAMP services" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${PYTHON}" \
      org.opencontainers.image.licenses="MIT"
