# The gateway as an image: `docker build -t replicate-gateway .`
#
# BASE is any image with Python 3.11 or newer as `python3`, and its module venv. Named by digest, it is the same bytes
# each time; the packages are those of constraints.txt, checked by their hashes.
# EXTRAS are those of pyproject.toml: speed (uvloop), otel (traces), dashboard (the console), simulator (the stand-in
# for Replicate), postgres (the store), s3 (the bucket of outputs), oidc (identities of issuers).
# COMMIT is what `gateway --version` shows: --build-arg COMMIT=$(git rev-parse HEAD). The context has no history.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG EXTRAS=speed,otel,dashboard,oidc
ARG COMMIT=
WORKDIR /src
COPY . .
# pip and the build backend stay behind, in an environment of their own; the one that goes on has neither.
# All that comes from outside is checked against a hash of constraints.txt, pip itself first: older ones cannot do it.
RUN python3 -m venv /tools \
 && python3 -m venv --without-pip /opt/gateway \
 && sed -n '/^pip==/,/[^\\]$/p' constraints.txt > /tools/pip.txt \
 && /tools/bin/python -m pip install --no-cache-dir --require-hashes -r /tools/pip.txt \
 && /tools/bin/python -m pip install --no-cache-dir --require-hashes -c constraints.txt --group build \
 && GATEWAY_COMMIT="${COMMIT}" /tools/bin/python -m pip wheel --no-cache-dir --no-deps --no-build-isolation -w /wheels . \
 && sha256sum /wheels/*.whl > /tools/sum && read -r sum wheel < /tools/sum \
 && /tools/bin/python -m pip --python /opt/gateway/bin/python install --no-cache-dir --require-hashes -c constraints.txt \
      "replicate-gateway[${EXTRAS}] @ file://${wheel}#sha256=${sum}" \
 && mkdir /data

FROM ${BASE}
LABEL org.opencontainers.image.title="replicate-gateway" \
      org.opencontainers.image.description="Lets many callers share one Replicate account safely." \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/gateway /opt/gateway
# Numbers are enough: the base needs no account of that name. A new volume takes its owner from here.
COPY --from=build --chown=65532:65532 /data /data
# Uploads wait in unnamed files while they are hashed: on the volume, for /tmp is small where the root is read-only.
# Settings in variables take precedence over the config: what is true of every container need not be in it.
ENV PATH=/opt/gateway/bin:$PATH \
    TMPDIR=/data \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    GATEWAY_CONFIG=/etc/gateway/config.toml \
    GATEWAY__SERVER__HOST=0.0.0.0 \
    GATEWAY__STORE__URL=sqlite:////data/gateway.db
# Paths in the config are relative to this folder: [outputs] url = "outputs" is /data/outputs.
WORKDIR /data
VOLUME /data
USER 65532:65532
EXPOSE 8080 9464
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 CMD ["gateway", "check", "--health"]
ENTRYPOINT ["gateway"]
CMD ["serve"]
