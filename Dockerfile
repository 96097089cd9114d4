# Two images of one source: `server` (the HTTP API and the dashboard, without torch) and `worker`
# (CUDA comes with torch's wheels; the host needs NVIDIA's driver and container toolkit alone).
#
#   docker build --target server -t tdmr-server:0.1.0 .
#   docker build --target worker -t tdmr-worker:0.1.0 .
#
# Neither writes anywhere but below /var/lib/tdmr and /tmp, so the rest can be mounted read-only.

FROM python:3.11.14-slim-bookworm AS runtime
RUN groupadd --gid 10001 tdmr \
    && useradd --uid 10001 --gid tdmr --home-dir /var/lib/tdmr --shell /usr/sbin/nologin tdmr \
    && install --directory --owner tdmr --group tdmr --mode 0700 /var/lib/tdmr
ENV PATH=/opt/tdmr/bin:$PATH \
    PYTHONPATH=/srv/tdmr \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TDMR_DATA_DIR=/var/lib/tdmr
WORKDIR /srv/tdmr

# What is installed is in the lock file with its hash, and comes built: nothing is compiled here.
FROM python:3.11.14-slim-bookworm AS build-server
COPY requirements/server.txt /requirements.txt
RUN python -m venv --without-pip /opt/tdmr \
    && python -m pip --python /opt/tdmr/bin/python install --no-cache-dir --require-hashes \
    --only-binary :all: --no-deps --disable-pip-version-check --requirement /requirements.txt

FROM python:3.11.14-slim-bookworm AS build-worker
COPY requirements/worker.txt /requirements.txt
RUN python -m venv --without-pip /opt/tdmr \
    && python -m pip --python /opt/tdmr/bin/python install --no-cache-dir --require-hashes \
    --only-binary :all: --no-deps --disable-pip-version-check --requirement /requirements.txt

FROM runtime AS worker
COPY --from=build-worker /opt/tdmr /opt/tdmr
COPY LICENSE ./
COPY app ./app
COPY migrations ./migrations
COPY tdmr ./tdmr
COPY worker ./worker
ENV HOME=/var/lib/tdmr \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_VISIBLE_DEVICES=all
USER 10001:10001
# Whether this container's workers were heard of in the last lease.
HEALTHCHECK --interval=60s --timeout=30s --start-period=60s --retries=3 \
    CMD ["python", "-m", "worker", "healthy"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "worker"]
CMD ["--device", "auto"]

FROM runtime AS server
COPY --from=build-server /opt/tdmr /opt/tdmr
COPY LICENSE ./
COPY migrations ./migrations
COPY tdmr ./tdmr
COPY app ./app
ENV HOME=/var/lib/tdmr
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "app"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8080", "--no-worker"]
