"""Every form by its name."""

from __future__ import annotations

from regrad.handover.coco import COCO
from regrad.handover.cvat import CVAT
from regrad.handover.fiftyone import FIFTYONE
from regrad.handover.forms import Form
from regrad.handover.huggingface import HUGGING_FACE
from regrad.handover.label_studio import LABEL_STUDIO
from regrad.handover.plain import CSV

FORMS: dict[str, Form] = {form.name: form for form in (COCO, CSV, CVAT, FIFTYONE, HUGGING_FACE, LABEL_STUDIO)}
