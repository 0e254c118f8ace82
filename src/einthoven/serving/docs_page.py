"""A page that describes the API, made from its OpenAPI description; it asks for nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

_EXAMPLES = {
    "/predict": """curl -F file=@ecg.dcm http://127.0.0.1:8000/predict
curl -F file=@100.hea -F file=@100.dat http://127.0.0.1:8000/predict
curl -F file=@ecg.csv -F fs=500 -F units=mV http://127.0.0.1:8000/predict
curl -H 'Content-Type: application/json' \\
  -d '{"signal": [[0.01, 0.02, ...]], "fs": 500, "leads": ["II"]}' \\
  http://127.0.0.1:8000/predict""",
    "/explain": "curl -F file=@ecg.dcm -F label=MI http://127.0.0.1:8000/explain",
    "/health": "curl http://127.0.0.1:8000/health",
    "/metadata": "curl -H 'Authorization: Bearer TOKEN' http://127.0.0.1:8000/metadata",
}

DOCS_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} API</title>
<link rel="icon" href="/icon.svg">
<link rel="stylesheet" href="/page.css">
</head>
<body class="docs">
<header><div><h1>{title} API</h1><p class="soft">Version {version}</p></div>
<p class="device">Research software, not a medical device.</p></header>
<main>
<p>{description}</p>
<p><a href="/">The page</a> · <a href="/openapi.json">This description as OpenAPI JSON</a></p>
{operations}
</main>
</body>
</html>
"""


def docs_html(description: Mapping[str, Any]) -> str:
    """The page, from what FastAPI says of the application."""
    schemas = description.get("components", {}).get("schemas", {})
    operations = [
        _operation_html(path, method, operation, schemas)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]
    info = description["info"]
    return DOCS_TEMPLATE.format(
        title=escape(info["title"]),
        version=escape(info["version"]),
        description=escape(info.get("description", "")),
        operations="\n".join(operations),
    )


def _operation_html(
    path: str, method: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]
) -> str:
    parts = [
        f'<section><h2 id="{escape(path.strip("/"))}"><code>{method.upper()} {escape(path)}</code>'
        f"</h2><p>{escape(operation.get('summary', ''))}.</p>"
    ]
    if operation.get("security"):
        parts.append("<p>Needs <code>Authorization: Bearer TOKEN</code>.</p>")
    if path in _EXAMPLES:
        parts.append(f'<pre tabindex="0">{escape(_EXAMPLES[path])}</pre>')
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<h3>Body, <code>{escape(kind)}</code></h3>")
        parts.append(_fields_html(content["schema"], schemas))
    for status, answer in operation.get("responses", {}).items():
        schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
        if status == "200" and _resolved(schema, schemas).get("properties"):
            parts.append("<h3>Answer, <code>application/json</code></h3>")
            parts.append(_fields_html(schema, schemas))
    parts.append(_statuses_html(operation.get("responses", {})))
    return "".join(parts) + "</section>"


def _fields_html(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    resolved = _resolved(schema, schemas)
    required = resolved.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(_type_text(of, schemas))}</td>"
        f"<td>{'required' if name in required else ''}</td>"
        f"<td>{escape(of.get('description', ''))}</td></tr>"
        for name, of in resolved.get("properties", {}).items()
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("field", "type", "", "meaning"))
    return (
        f'<div class="table" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _statuses_html(responses: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<dt>{escape(status)}</dt><dd>{escape(answer.get('description', ''))}</dd>"
        for status, answer in responses.items()
        if status != "200"
    )
    if not rows:
        return ""
    return f"<h3>Errors, each with <code>error</code></h3><dl class='facts'>{rows}</dl>"


def _resolved(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    found: Mapping[str, Any] = schemas[name] if name else schema
    return found


def _type_text(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    """A type in a few words.

    >>> _type_text({"type": "array", "items": {"type": "number"}}, {})
    'list of number'
    """
    if "anyOf" in schema:
        return " or ".join(_type_text(each, schemas) for each in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(json.dumps(value) for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type_text(schema.get('items', {}), schemas)}"
    if schema.get("format") == "binary":
        return "file"
    if isinstance(schema.get("additionalProperties"), Mapping):
        return f"names to {_type_text(schema['additionalProperties'], schemas)}"
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    return str(schema.get("type", "any"))
