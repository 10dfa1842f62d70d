# syntax=docker/dockerfile:1
# Folder in, folder out: restores what lies in the input folder, then exits. No network is needed at run time.
#
#   docker build -t monai-sasm .                                  CPU
#   docker build -t monai-sasm:cuda --build-arg TORCH=cu128 .     NVIDIA GPU; run with --gpus all
#   mkdir -p restored
#   docker run --rm --network none --user "$(id -u):$(id -g)" \
#     -v "$PWD/scans:/var/holoscan/input:ro" -v "$PWD/restored:/var/holoscan/output" monai-sasm
#
# The output folder must be there and writable for the user given with --user, or for user 1000. Folders may also be given by
# MERCURE_IN_DIR and MERCURE_OUT_DIR or MONAI_INPUTPATH and MONAI_OUTPUTPATH, options by SASM_BATCH_STRENGTH=0.8 and so
# on; `docker run monai-sasm restore --help` reaches the other commands.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
# the PyTorch build: cpu, or a CUDA version such as cu128
ARG TORCH=cpu
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY constraints.txt ./
RUN python -m venv /opt/sasm \
    && /opt/sasm/bin/pip install --constraint constraints.txt \
        --index-url "https://download.pytorch.org/whl/${TORCH}" torch torchvision
COPY setup.cfg pyproject.toml README.md LICENSE THIRD_PARTY.md ./
COPY bundles ./bundles
COPY configs ./configs
COPY monai_sasm ./monai_sasm
RUN /opt/sasm/bin/pip install --constraint constraints.txt ".[cluster]"

FROM python:${PYTHON}-slim-bookworm
LABEL org.opencontainers.image.title="monai-sasm" \
      org.opencontainers.image.description="Restores CT, MR and photos. Not a medical device." \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 1000 sasm \
    && useradd --uid 1000 --gid 1000 --create-home sasm \
    && install --directory --owner sasm --group sasm /var/holoscan /var/holoscan/input /var/holoscan/output
COPY --from=build /opt/sasm /opt/sasm
# MONAI Deploy looks here. Not in /etc/monai as well: mercure would then insist on running the container as root.
COPY containers/app.json containers/pkg.json /etc/holoscan/
# any user can be given with --user: one that is not in the passwd file has no home to write into
ENV PATH="/opt/sasm/bin:${PATH}" \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    HOLOSCAN_INPUT_PATH=/var/holoscan/input \
    HOLOSCAN_OUTPUT_PATH=/var/holoscan/output
USER 1000:1000
WORKDIR /var/holoscan
ENTRYPOINT ["sasm"]
CMD ["batch", "--resume"]
