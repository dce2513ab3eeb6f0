# docker build -t pathology-screen .
# docker run --rm --network none --read-only --tmpfs /tmp -u "$(id -u)" \
#     -v SCANS:/scans:ro -v OUT:/out pathology-screen screen /scans -o /out
FROM python:3.12-slim
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu torch torchvision
COPY pyproject.toml setup.cfg setup.py README.md LICENSE /src/
COPY pathology_screen /src/pathology_screen
COPY bundles /src/bundles
COPY data_lists /src/data_lists
RUN pip install --no-cache-dir '/src[dicom]' && rm -r /src
ENV HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib LOGNAME=pathology-screen
USER 1000:1000
WORKDIR /tmp
ENTRYPOINT ["pathology-screen"]
