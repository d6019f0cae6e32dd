"""`validate`: what the API server would say about YAML files, found out without one.

`documents` reads YAML with its lines, `schema` checks a value against a CRD's structural schema and fills in defaults,
`cel` evaluates the CRD's rules, `references` looks at names that documents call each other by, `validation` puts them
together. The CRDs are the generated ones, shipped as package data.
"""
