"""What people label and look with: images in the forms that their tools take, and the labels that come back."""

#: Each is a :class:`regrad.handover.forms.Form` of :data:`regrad.handover.known.FORMS`.
FORMATS = ("coco", "csv", "cvat", "fiftyone", "huggingface", "label-studio")
