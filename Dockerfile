# The images of compose.yaml: `docker build --target service|migrate|development .`
# BASE may be any image with Python 3.11 or newer. What it or PACKAGES brings along is not installed again: where there is no registry,
# dev/service_image.py makes both of this machine's own files.
ARG BASE=python:3.12-slim-bookworm
ARG PACKAGES=${BASE}

FROM ${PACKAGES} AS packages
COPY requirements/run.txt requirements/trial.txt /tmp/
RUN [ -e /opt/venv/pyvenv.cfg ] || { python -m venv --without-pip /opt/venv \
    && python -m pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --require-hashes -r /tmp/run.txt \
    && python -m pip install --no-cache-dir --no-compile --require-hashes --target /opt/trial -r /tmp/trial.txt; }

# The programs: nothing but Python, its packages and our code.
FROM ${BASE} AS service
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp TZ=UTC LC_ALL=C.UTF-8
COPY --from=packages /opt/venv /opt/venv
WORKDIR /opt/galaxy
COPY ops/compose/health.py ops/compose/
COPY proto proto
COPY workers workers
COPY app app
COPY sqitch.plan ./
USER 65532:65532
EXPOSE 8080 8081 9100
ENTRYPOINT ["python", "-m", "app"]
CMD ["serve"]

# The same with what a trial needs and production does not: the mail catcher, sample geo data.
FROM service AS development
ENV PYTHONPATH=/opt/trial
COPY --from=packages /opt/trial /opt/trial
COPY ops/compose/prepare.py ops/compose/
COPY dev dev
ENTRYPOINT ["python", "-m"]
CMD ["dev.mail_catcher", "--host", "0.0.0.0"]

# The same with Sqitch and psql: deploys the schema and ends.
FROM service AS migrate
USER 0:0
RUN command -v sqitch || { apt-get update \
    && apt-get install --yes --no-install-recommends sqitch libdbd-pg-perl postgresql-client && rm -rf /var/lib/apt/lists/*; }
COPY ops/compose/migrate.sh ops/compose/
COPY db db
COPY sqitch.conf ./
USER 65532:65532
ENTRYPOINT ["sh", "ops/compose/migrate.sh"]
CMD []
