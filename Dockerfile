# docker build -t tenure . && docker run -p 5000:5000 -v tenure:/data tenure
# BASE may name a mirror or a digest of the same image.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
WORKDIR /src
COPY requirements.lock ./
RUN python -m venv /opt/tenure \
 && /opt/tenure/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock
COPY pyproject.toml README.md ./
COPY registry registry
COPY storage storage
COPY gc gc
COPY api api
COPY src src
# botocore carries the descriptions of every AWS service (31 MB): S3 and the ways to its credentials are used.
RUN /opt/tenure/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation . \
 && cd /opt/tenure/lib/python3*/site-packages/botocore/data \
 && find . -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name sts ! -name sso ! -name sso-oidc -exec rm -r {} + \
 && /opt/tenure/bin/pip uninstall --yes --quiet setuptools pip \
 && find /opt/tenure -name '__pycache__' -prune -exec rm -r {} + \
 && python -m compileall -q -j 0 /opt/tenure/lib

FROM ${BASE}
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin tenure \
 && install -d -o 10001 -g 10001 /data
COPY --from=build /opt/tenure /opt/tenure
ENV PATH=/opt/tenure/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    TENURE_SERVER_LISTEN=0.0.0.0:5000 \
    TENURE_SERVER_DATA_DIR=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 5000
# A drain may take as long as server.drain allows: give it that time (docker stop --time, terminationGracePeriodSeconds).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-m", "tenure.app.alive"]
ENTRYPOINT ["tenure"]
CMD ["serve"]
