"""The sidecar that proves the adapters of a serving pod, and is the pod's readiness.

Belongs here: verifying adapters on disk, asking the engine an adapter's probe prompts through its OpenAI routes, the
judgement of the answers (pure, in `judgement`), and the answers to kubelet, operator and Prometheus.
Must not be here: anything about one engine (TGI, vLLM and ours look the same from here), torch, Kubernetes.
"""
