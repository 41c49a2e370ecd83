# docker build -t scamp-gateway .
# docker run -p 8080:8080 -v /etc/scamp:/etc/scamp:ro -v /run/scamp:/run/scamp:ro \
#   scamp-gateway run --scamp-conf /etc/scamp/scamp.conf --discovery-cache /run/scamp/cache …

ARG PYTHON=python:3.13-slim-bookworm

FROM ${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY scamp scamp
COPY gateway gateway
RUN pip wheel --no-deps --wheel-dir /wheels . \
 && python -m venv /opt/scamp-gateway \
 && /opt/scamp-gateway/bin/pip install --only-binary=:all: "$(echo /wheels/*.whl)[redis,workers]" \
 && /opt/scamp-gateway/bin/pip uninstall --yes pip

FROM ${PYTHON}
LABEL org.opencontainers.image.title="scamp-gateway" \
      org.opencontainers.image.description="HTTP gateway for a mesh of SCAMP services" \
      org.opencontainers.image.licenses="MIT"
# Memory comes back after a crowd with this allocator: docs/capacity.md.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libjemalloc2 \
 && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 gateway \
 && useradd --uid 10001 --gid gateway --no-create-home --home-dir / --shell /usr/sbin/nologin gateway
COPY --from=build /opt/scamp-gateway /opt/scamp-gateway
# The admin listener has no authentication: publish 9090 to whoever may watch, and to nobody else.
ENV PATH=/opt/scamp-gateway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONMALLOC=malloc \
    LD_PRELOAD=libjemalloc.so.2 \
    MALLOC_CONF=background_thread:true,dirty_decay_ms:1000 \
    SCAMP_GATEWAY_ADMIN_BIND=0.0.0.0:9090
USER 10001:10001
EXPOSE 8080 9090
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
  CMD ["/opt/scamp-gateway/bin/python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9090/livez', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["scamp-gateway"]
CMD ["run"]
