# regrad with all that it needs to score: on CPUs, or on NVIDIA GPUs.
#
#     docker build --build-arg DEVICE=cpu --tag regrad:cpu .
#     docker build --build-arg DEVICE=gpu --tag regrad:gpu .
#     docker run --rm regrad:cpu regrad demo /tmp/demo
#
# Every Python package has the version of constraints.txt. PYTHON_IMAGE=python@sha256:... pins the base by its digest.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG DEVICE=cpu
WORKDIR /build
COPY pyproject.toml constraints.txt ./
# Dependencies first: this layer stays as it is until they change. The CUDA builds of torch are the ones of PyPI.
# hadolint ignore=DL3042
RUN case "${DEVICE}" in cpu) torch=--torch-backend=cpu ;; gpu) torch= ;; \
        *) echo "DEVICE=${DEVICE}: it is cpu or gpu" >&2; exit 2 ;; esac \
    && python3 -m venv /opt/regrad \
    && /opt/regrad/bin/pip install --no-cache-dir --constraint constraints.txt uv \
    && /opt/regrad/bin/uv pip install --no-cache --compile-bytecode --python /opt/regrad/bin/python \
        --constraint constraints.txt ${torch} --requirement pyproject.toml --extra timm --extra gcs --extra map
COPY README.md LICENSE ./
COPY regrad regrad
RUN /opt/regrad/bin/uv pip install --no-cache --compile-bytecode --python /opt/regrad/bin/python --no-deps \
        --constraint constraints.txt . \
    && /opt/regrad/bin/uv pip uninstall --python /opt/regrad/bin/python uv

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG DEVICE=cpu
LABEL org.opencontainers.image.title="regrad" \
      org.opencontainers.image.description="REGrad epistemic uncertainty of image classifiers at dataset scale, on Ray (${DEVICE})" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
# KubeRay's probes ask Ray for its health with wget; its version is the one of the base image's Debian release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 regrad
COPY --from=build /opt/regrad /opt/regrad
COPY jobs /app/jobs
ENV PATH="/opt/regrad/bin:${PATH}" PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0
WORKDIR /app
USER 1000
CMD ["regrad", "--help"]
