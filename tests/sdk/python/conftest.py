"""Clients of the two gateways that `run` has started."""

import os

import anthropic
import httpx
import openai
import pytest
from google import genai
from google.genai import types as genai_types

ECHO = os.environ["ECHO_URL"]
GATEWAY = os.environ["GATEWAY_URL"]
MOCK = os.environ["MOCK_URL"]


def pytest_unconfigure(config):
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    count = {kind: len(reporter.stats.get(kind, [])) for kind in ("passed", "failed", "error")}
    print(f"{count['passed']} passed, {count['failed'] + count['error']} failed")


def openai_at(url, **options):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="sk-nobody", max_retries=0, **options)


def anthropic_at(url, **options):
    return anthropic.Anthropic(base_url=url, api_key="sk-nobody", max_retries=0, **options)


def genai_at(url):
    return genai.Client(api_key="nobody", http_options=genai_types.HttpOptions(base_url=url))


@pytest.fixture(scope="session")
def echo():
    with openai_at(ECHO) as client:
        yield client


@pytest.fixture(scope="session")
def gateway():
    with openai_at(GATEWAY) as client:
        yield client


@pytest.fixture(scope="session")
def echo_anthropic():
    with anthropic_at(ECHO) as client:
        yield client


@pytest.fixture(scope="session")
def gateway_anthropic():
    with anthropic_at(GATEWAY) as client:
        yield client


@pytest.fixture(scope="session")
def echo_genai():
    with genai_at(ECHO) as client:
        yield client


@pytest.fixture(scope="session")
def gateway_genai():
    with genai_at(GATEWAY) as client:
        yield client


@pytest.fixture(scope="session")
def http():
    with httpx.Client() as client:
        yield client
