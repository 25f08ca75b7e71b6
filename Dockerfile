# The images of compose.yaml: `docker build --target service|migrate|development .`
# BASE may be any image with Python 3.11 or newer; where there is no registry, dev/service_image.py makes one of this machine's own
# files. What such a base brings along is not installed again.
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS packages
COPY requirements/run.txt /tmp/
RUN [ -x /opt/venv/bin/python ] || { python -m venv --without-pip /opt/venv \
    && python -m pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --require-hashes -r /tmp/run.txt; }

# The programs: nothing but Python, its packages and our code.
FROM ${BASE} AS service
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp TZ=UTC LC_ALL=C.UTF-8
COPY --from=packages /opt/venv /opt/venv
WORKDIR /opt/galaxy
COPY sqitch.plan ./
COPY app app
COPY workers workers
COPY proto proto
COPY ops/compose/health.py ops/compose/
USER 65532:65532
EXPOSE 8080 8081 9100
ENTRYPOINT ["python", "-m", "app"]
CMD ["serve"]

# The same with Sqitch and psql: deploys the schema and ends.
FROM service AS migrate
USER root
RUN command -v sqitch || { apt-get update \
    && apt-get install --yes --no-install-recommends sqitch libdbd-pg-perl postgresql-client && rm -rf /var/lib/apt/lists/*; }
COPY sqitch.conf ./
COPY db db
COPY ops/compose/migrate.sh ops/compose/
USER 65532:65532
ENTRYPOINT ["sh", "ops/compose/migrate.sh"]
CMD []

# The same with what a trial needs and production does not: the mail catcher, sample geo data.
FROM service AS development
USER root
COPY requirements/dev.txt /tmp/
RUN python -c "import aiosmtpd, mmdb_writer" \
    || python -m pip --python /opt/venv/bin/python install --no-cache-dir --require-hashes -r /tmp/dev.txt
COPY dev dev
USER 65532:65532
ENTRYPOINT ["python", "-m"]
CMD ["dev.mail_catcher", "--host", "0.0.0.0"]
