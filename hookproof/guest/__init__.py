# SPDX-License-Identifier: Apache-2.0
"""What runs inside the guest: one executor process that takes requests as JSON lines."""
