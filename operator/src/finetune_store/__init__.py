"""Directories with manifests on a claim or in S3: stage, verify, publish, resolve.

Belongs here: everything that knows how datasets, models, checkpoints, artifacts and outcomes lie in a store, as a
library for pods and as the commands `stage`, `deliver` and `collect` of small CPU pods. Must not be here: Kubernetes,
torch, what the files mean. Imports only the contract; boto3 and huggingface_hub only inside the sources that need them.

    <root>/<kind>/<digest hex>/manifest.json ...       a published directory, never changed; readers verify
    <root>/runs/<run key>/outcome.json                 the run has succeeded, and with what
    <root>/runs/<run key>/checkpoints/<pod uid>/       one pod incarnation's checkpoints, sealed by their manifests
    <root>/runs/<run key>/attempts/<n>/                result and log of one attempt; of a batch <uid>-<n>, its log
    <root>/runs/<run key>/shards/<digest>/             rows of a batch that are answered
    <root>/runs/<run key>/evaluations/<artifact>-<key>/  what was measured of an artifact, and its report
    <root>/sources/<sha256>.json                       which digest a source had at a revision
    <root>/.work/                                      unfinished work; swept after a day
    <root>/collection.json                             what nothing referred to at the last look, and since when
    <root>/.collected/<kind>-<name>/                   set aside by a collector; users bring it back
    <root>/.namespaces/<name>                          who uses the store

In S3, `<root>` is `s3://bucket/prefix`, and instead of a directory's time and a rename there are

    <root>/.used/<kind>/<name>                         written when it is used
    <root>/.collected/<kind>/<name>                    a note: a collector is at it
"""
