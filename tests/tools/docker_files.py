"""Checks docker/ where no container engine runs: linters over both files, the Dockerfile's build steps executed as they
stand (in the test profile, so that they share the tests' target folder), the image's root entered, and the compose file's
services run as processes with the environment that it gives them."""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from dockerfile_parse import DockerfileParser

TOP = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
DOCKERFILE, COMPOSE = TOP / "docker/Dockerfile", TOP / "docker/compose.yaml"


def main():
    subprocess.run([BIN / "hadolint", DOCKERFILE], check=True)
    subprocess.run([BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE], check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        build(root)
        enter(root)
        compose(root / "usr/bin/oilskin", Path(folder) / "keys")
    print("docker: linted, built, entered, composed")


def build(root):
    """Every RUN of the Dockerfile, as it stands; build arguments are the only difference."""
    file = DockerfileParser(path=str(DOCKERFILE))
    steps = [step["value"] for step in file.structure if step["instruction"] == "RUN"]
    assert steps, "the Dockerfile has no build step"
    for step in steps:
        step = re.sub(r"--mount=\S+\s+", "", step)
        environment = {**os.environ, "PROFILE": "dev", "OUT": str(root)}
        subprocess.run(["sh", "-ec", step], cwd=TOP, env=environment, check=True)
    users = [step["value"] for step in file.structure if step["instruction"] == "USER"]
    assert users == ["10001:10001"], users


def enter(root):
    """The image's root holds all that the binary needs."""
    unshared = [] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user"]
    shown = subprocess.run([*unshared, "chroot", root, "/usr/bin/oilskin", "--version"], check=True, capture_output=True, text=True)
    assert shown.stdout.startswith("oilskin "), shown.stdout
    assert (root / "etc/ssl/certs/ca-certificates.crt").stat().st_size > 0


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def compose(oilskin, keys):
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    store, proxy = free_port(), free_port()
    # What differs between a pod's network and this machine's: names, ports and the volume's path.
    places = {"0.0.0.0:8080": f"127.0.0.1:{store}", "http://store:8080": f"http://127.0.0.1:{store}",
              "http://127.0.0.1:16001": f"http://127.0.0.1:{proxy}", "file:/keys/": f"file:{keys}/", "$$": "$"}

    def environment(service, **more):
        given = dict(services[service]["environment"])
        for name, value in given.items():
            for here, there in places.items():
                value = value.replace(here, there)
            given[name] = value
        return {**{"PATH": os.environ["PATH"]}, **given, **more}

    def script(service):
        command = services[service]["command"]
        return [sys.executable, TOP / "docker/example" / Path(command[-1]).name]

    init = [oilskin, *services["keys"]["command"]]
    running = []
    try:
        for _ in range(2):
            subprocess.run(init, env=environment("keys"), check=True, stdout=subprocess.DEVNULL)
        running.append(subprocess.Popen(script("store"), env=environment("store")))
        ports = {"OILSKIN_LISTEN": f"127.0.0.1:{proxy}", "OILSKIN_UNSAFE_UNLOCKED_KEYS": "true"}
        ports |= {f"OILSKIN_{name}_LISTEN": "off" for name in ("ADMIN", "METRICS", "HEALTH")}
        wait(store)
        running.append(subprocess.Popen([oilskin], env=environment("oilskin", **ports), stderr=subprocess.DEVNULL))
        wait(proxy)
        app = subprocess.run(script("app"), env=environment("app"), check=True, capture_output=True, text=True, timeout=60)
    finally:
        for process in running:
            process.kill()
    wrote, read, holds = (json.loads(line[line.index("{"):]) for line in app.stdout.splitlines())
    assert wrote == read, app.stdout
    assert holds["name"] == wrote["name"], app.stdout
    assert all(holds[name].startswith("oil1.") for name in ("ssn", "email")), app.stdout


def wait(port):
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("a service does not listen after 10 s")


main()
