"""torchvision's networks written plainly and narrow, under its names: what a test of weights compares with.

vgg16(width, norm)                 .features, .classifier
resnet(name, width)                conv1 … layer4, fc
segmenter(head, name, width)       backbone, classifier, aux_classifier: fcn_resnet, deeplabv3_resnet
drawn(module)                      in evaluation mode, with nothing left at zero or one
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional

CONFIGURATION_D = (1, 1, "M", 2, 2, "M", 4, 4, 4, "M", 8, 8, 8, "M", 8, 8, 8, "M")
UNITS = {
    "resnet18": (1, (2, 2, 2, 2)),
    "resnet34": (1, (3, 4, 6, 3)),
    "resnet50": (4, (3, 4, 6, 3)),
    "resnet101": (4, (3, 4, 23, 3)),
    "resnet152": (4, (3, 8, 36, 3)),
}


def drawn(module, seed=0):
    torch.manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for parameter in (layer.weight, layer.running_var):
                nn.init.uniform_(parameter, 0.5, 1.5)
            for parameter in (layer.bias, layer.running_mean):
                nn.init.uniform_(parameter, -0.2, 0.2)
    return module.eval()


class VGG16(nn.Module):
    def __init__(self, width, norm, classes=10):
        super().__init__()
        layers, inputs = [], 3
        for step in CONFIGURATION_D:
            if step == "M":
                layers.append(nn.MaxPool2d(2, 2))
                continue
            layers.append(nn.Conv2d(inputs, step * width, 3, padding=1))
            layers += [nn.BatchNorm2d(step * width)] * norm + [nn.ReLU(inplace=True)]
            inputs = step * width
        self.features = nn.Sequential(*layers)
        fc = 64 * width
        self.classifier = nn.Sequential(
            nn.Linear(inputs * 49, fc),
            nn.ReLU(True),
            nn.Dropout(),
            nn.Linear(fc, fc),
            nn.ReLU(True),
            nn.Dropout(),
            nn.Linear(fc, classes),
        )


def vgg16(width=2, norm=False):
    return drawn(VGG16(width, norm))


class Unit(nn.Module):
    def __init__(self, inputs, inner, expansion, stride, rate):
        super().__init__()
        outputs = inner * expansion
        kernels = ((3, stride, rate), (3, 1, rate)) if expansion == 1 else ((1, 1, 1), (3, stride, rate), (1, 1, 1))
        channels = [inputs, *[inner] * (len(kernels) - 1), outputs]
        for i, (kernel, step, dilation) in enumerate(kernels, 1):
            padding = dilation * (kernel // 2)
            layer = nn.Conv2d(channels[i - 1], channels[i], kernel, step, padding, dilation, bias=False)
            self.add_module(f"conv{i}", layer)
            self.add_module(f"bn{i}", nn.BatchNorm2d(channels[i]))
        self.layers = len(kernels)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        for i in range(1, self.layers + 1):
            x = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(x))
            if i < self.layers:
                x = x.relu()
        return (x + shortcut).relu()


class ResNet(nn.Module):
    """With ``dilated``, strides of the last two stages are dilations, as in torchvision's segmentation networks."""

    def __init__(self, name, width, dilated=False, classes=10):
        super().__init__()
        expansion, counts = UNITS[name]
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        inputs, rate = width, 1
        for stage, count in enumerate(counts):
            inner, stride, before = width * 2**stage, 2 if stage else 1, rate
            if dilated and stage >= 2:
                rate, stride = rate * stride, 1
            units = []
            for i in range(count):
                units.append(Unit(inputs, inner, expansion, 1 if i else stride, rate if i else before))
                inputs = inner * expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*units))
        if classes:
            self.fc = nn.Linear(inputs, classes)

    def stages(self, x):
        x = functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        found = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            found.append(x)
        return found


def resnet(name, width=2):
    return drawn(ResNet(name, width))


def norm_relu(inputs, outputs, kernel, rate=1):
    padding = rate * (kernel // 2)
    layer = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=rate, bias=False)
    return [layer, nn.BatchNorm2d(outputs), nn.ReLU()]


def fcn_head(inputs, classes):
    inner = inputs // 4
    return nn.Sequential(*norm_relu(inputs, inner, 3), nn.Dropout(0.1), nn.Conv2d(inner, classes, 1))


class ImagePooling(nn.Sequential):
    def forward(self, x):
        return functional.interpolate(super().forward(x), size=x.shape[-2:], mode="bilinear", align_corners=False)


class ASPP(nn.Module):
    def __init__(self, inputs, outputs, rates=(12, 24, 36)):
        super().__init__()
        convs = [nn.Sequential(*norm_relu(inputs, outputs, 1))]
        convs += [nn.Sequential(*norm_relu(inputs, outputs, 3, rate)) for rate in rates]
        convs.append(ImagePooling(nn.AdaptiveAvgPool2d(1), *norm_relu(inputs, outputs, 1)))
        self.convs = nn.ModuleList(convs)
        self.project = nn.Sequential(*norm_relu(len(convs) * outputs, outputs, 1), nn.Dropout(0.5))

    def forward(self, x):
        return self.project(torch.cat([conv(x) for conv in self.convs], dim=1))


def deeplab_head(inputs, features, classes):
    return nn.Sequential(ASPP(inputs, features), *norm_relu(features, features, 3), nn.Conv2d(features, classes, 1))


class Segmenter(nn.Module):
    def __init__(self, head, name, width, classes):
        super().__init__()
        self.backbone = ResNet(name, width, dilated=True, classes=0)
        last = width * 8 * UNITS[name][0]
        self.classifier = fcn_head(last, classes) if head == "fcn" else deeplab_head(last, 4 * width, classes)
        self.aux_classifier = fcn_head(last // 2, classes)

    def forward(self, x):
        *_, before, last = self.backbone.stages(x)
        scores = OrderedDict(out=self.classifier(last), aux=self.aux_classifier(before))
        size = x.shape[-2:]
        return {k: functional.interpolate(v, size, mode="bilinear", align_corners=False) for k, v in scores.items()}


def segmenter(head, name="resnet50", width=2, classes=21):
    return drawn(Segmenter(head, name, width, classes))
