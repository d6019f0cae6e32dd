-- A word that was not there before asks again: the generation grows with every edit.
obj.spec.rerun = "argocd-" .. obj.metadata.generation
return obj
